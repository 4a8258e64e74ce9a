# One image with the programs `api`, `worker` and `millrace`. The default command is `api`.
#
#   docker build -t millrace .
#   docker run --rm -e DATABASE_URL=… millrace millrace migrate
#   docker run -p 8000:8000 --env-file millrace.env millrace       (see deploy/kubernetes/secret.example.env)
#   docker run --env-file millrace.env millrace worker
#   docker exec CONTAINER millrace queues                          operator commands
#
# It uses only basic instructions, so any builder works. The base images are arguments: replace them by local ones, or pin
# them by digest for reproducible builds: --build-arg RUNTIME_IMAGE=debian@sha256:…
ARG RUST_IMAGE=rust:1.95.0-slim-trixie
ARG RUNTIME_IMAGE=debian:13.2-slim

FROM ${RUST_IMAGE} AS build
# release, or dev, which builds in a third of the time
ARG PROFILE=release
WORKDIR /src

# Builds the dependencies from the manifests alone: this layer is rebuilt only if one of these files changes.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY api/Cargo.toml api/
COPY cli/Cargo.toml cli/
COPY crates/embedded-postgres/Cargo.toml crates/embedded-postgres/
COPY crates/hostile/Cargo.toml crates/hostile/
COPY crates/prove/Cargo.toml crates/prove/
COPY crates/queue/Cargo.toml crates/queue/
COPY crates/runtime/Cargo.toml crates/runtime/
COPY jobs/Cargo.toml jobs/
COPY worker/Cargo.toml worker/
RUN for program in api cli worker; do mkdir "$program/src" && echo 'fn main() {}' > "$program/src/main.rs"; done \
    && for library in api worker jobs crates/*; do mkdir -p "$library/src" && touch "$library/src/lib.rs"; done \
    && touch crates/queue/README.md \
    && cargo build --locked --profile "$PROFILE" --workspace --bins

# What `--version` and millrace_build_info show: --build-arg COMMIT=$(git rev-parse --short HEAD). Not above, where each new commit
# would build the dependencies again.
ARG COMMIT=
# Builds the code. `touch` is needed because cargo compares file times, and copied files may be older than the stub build.
COPY .env.example ./
COPY .sqlx .sqlx
COPY contracts contracts
COPY migrations migrations
COPY crates crates
COPY jobs jobs
COPY api api
COPY worker worker
COPY cli cli
RUN find api cli crates jobs worker -name '*.rs' -exec touch {} + \
    && cargo build --locked --profile "$PROFILE" --workspace --bins \
    && mkdir /out && folder=$([ "$PROFILE" = dev ] && echo debug || echo "$PROFILE") \
    && cp "target/$folder/api" "target/$folder/worker" "target/$folder/millrace" /out/

FROM ${RUNTIME_IMAGE}
# A numeric user, so that Kubernetes can verify that it is not root.
RUN groupadd --gid 10001 millrace \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin millrace \
    && install -d -o 10001 -g 10001 /var/log/millrace
# CA certificates for outgoing TLS, copied from the Rust image; the runtime image needs no package for them.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/ /usr/local/bin/
# Production by default: without its own keys the API refuses to start and names each missing key.
ENV ENV=prod HOST=0.0.0.0 PORT=8000 WORKER_HEALTH_PORT=9100
USER 10001:10001
WORKDIR /
EXPOSE 8000 9100
# Checks that the process lives (API or worker), not its database: a restart would not fix the database.
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s --retries=3 CMD ["millrace", "health"]
# Each program handles SIGTERM as process 1 and exits within 30 s, DRAIN_DELAY_SECONDS included: `docker stop --time 40`.
CMD ["api"]
