# One image with the three programs `api`, `worker` and `millrace`; without a command it is the API.
#
#   docker build -t millrace .
#   docker run --rm -e DATABASE_URL=… millrace millrace migrate
#   docker run -p 8000:8000 --env-file millrace.env millrace       (deploy/kubernetes/secret.example.env: what is in it)
#   docker run --env-file millrace.env millrace worker
#   docker exec CONTAINER millrace queues                          the operator's commands
#
# Plain instructions only, so that any builder takes it. Both images can be replaced by local ones; pin them by digest
# where builds must be the same byte for byte: --build-arg RUNTIME_IMAGE=debian@sha256:…
ARG RUST_IMAGE=rust:1.95.0-slim-trixie
ARG RUNTIME_IMAGE=debian:13.2-slim

FROM ${RUST_IMAGE} AS build
# release, or dev for a build that takes a third of the time
ARG PROFILE=release
# What `--version` and millrace_build_info show: --build-arg COMMIT=$(git rev-parse --short HEAD)
ARG COMMIT=
WORKDIR /src

# The dependencies, from the manifests alone: this layer is built again only when one of these files changes.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY api/Cargo.toml api/
COPY cli/Cargo.toml cli/
COPY jobs/Cargo.toml jobs/
COPY worker/Cargo.toml worker/
RUN for crate in api cli jobs worker; do mkdir "$crate/src" && echo 'fn main() {}' > "$crate/src/main.rs"; done \
    && rm jobs/src/main.rs && touch api/src/lib.rs jobs/src/lib.rs worker/src/lib.rs \
    && cargo build --locked --profile "$PROFILE" --workspace --bins

# The code. Copied files may be older than what was just built from the empty ones, and cargo goes by the time.
COPY .env.example ./
COPY .sqlx .sqlx
COPY contracts contracts
COPY migrations migrations
COPY jobs jobs
COPY api api
COPY worker worker
COPY cli cli
RUN find api cli jobs worker -name '*.rs' -exec touch {} + \
    && cargo build --locked --profile "$PROFILE" --workspace --bins \
    && mkdir /out && folder=$([ "$PROFILE" = dev ] && echo debug || echo "$PROFILE") \
    && cp "target/$folder/api" "target/$folder/worker" "target/$folder/millrace" /out/

FROM ${RUNTIME_IMAGE}
# By number, so that Kubernetes can tell that it is not root.
RUN groupadd --gid 10001 millrace \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin millrace \
    && install -d -o 10001 -g 10001 /var/log/millrace
# For the processes' own calls over TLS; the image of Rust has them, and nothing else needs the package.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/ /usr/local/bin/
# Production unless told otherwise: without keys of its own the API refuses to start, and names each.
ENV ENV=prod HOST=0.0.0.0 PORT=8000 WORKER_HEALTH_PORT=9100
USER 10001:10001
WORKDIR /
EXPOSE 8000 9100
# Whether the process lives, API or worker, not whether its database does: a restart would not bring that one back.
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s --retries=3 CMD ["millrace", "health"]
# Each handles SIGTERM as process 1, and has ended 30 s later, DRAIN_DELAY_SECONDS included: `docker stop --time 40`.
CMD ["api"]
