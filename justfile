# Shortcuts for developers; CONTRIBUTING.md describes them. Each command works without `just` as well.

[private]
default:
    @just --list

# Run once after cloning: install the git hooks, fetch the crates, and list missing test servers
setup: hooks
    cargo fetch --locked
    @for program in redis-server npm chromium git mvn javac pgbouncer prometheus faketime; do command -v "$program" >/dev/null || echo "$program is not installed: the tests that need it will not run"; done

# Install the git hooks, which check each commit and its message
hooks:
    git config core.hooksPath .githooks

# Run everything in one process, on http://127.0.0.1:8000
dev:
    cargo run

# Run the tests whose names contain a text; without arguments, all tests of all crates
test *names:
    cargo test {{ if names == "" { "" } else { "-p millrace --test tests -- " + names } }}

# Check formatting and lints
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Format everything
fmt:
    cargo fmt --all

# Run all checks of continuous integration
ci:
    bash .ci/run

# Apply the migrations to DATABASE_URL
migrate *options:
    cargo run -q -- migrate {{ options }}

# Create the files of a migration, such as `just migration create_invoices`
migration name:
    migrations/new {{ name }}

# Rewrite .sqlx/ after a query or a migration has changed
prepare:
    bash .ci/prepare-sqlx

# Regenerate api/openapi.json after the API has changed
openapi:
    cargo run -q -p api --example openapi > target/openapi.json
    mv target/openapi.json api/openapi.json

# Measure throughput and latency on this machine against PostgreSQL baselines
bench *options:
    cargo run --release -- bench {{ options }}

# Measure line coverage; needs cargo-llvm-cov
coverage:
    cargo llvm-cov --workspace --locked --html
    cargo llvm-cov report --summary-only

# Build the documentation of all crates; broken links are errors
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
