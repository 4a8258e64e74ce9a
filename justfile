# Shortcuts for the commands of README.md; each works without `just` as well.

[private]
default:
    @just --list

# Once after cloning: git's hooks, the crates, and a look at what the tests may miss here
setup: hooks
    cargo fetch --locked
    @for program in redis-server npm git; do command -v "$program" >/dev/null || echo "not here, so some tests will say so: $program"; done

# Have git check each commit and its message
hooks:
    git config core.hooksPath .githooks

# Everything in one process, on http://127.0.0.1:8000
dev:
    cargo run

# The tests whose names contain this; without it, all of every crate
test *names:
    cargo test {{ if names == "" { "" } else { "-p millrace --test tests -- " + names } }}

# Formatting and lints
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Format everything
fmt:
    cargo fmt --all

# What must hold before a change lands
ci:
    bash .ci/run

# Bring DATABASE_URL to this program's schema
migrate *options:
    cargo run -q -- migrate {{ options }}

# Begin a migration, such as `just migration create_invoices`
migration name:
    migrations/new {{ name }}

# Rewrite .sqlx/ after a query or a migration has changed
prepare:
    bash .ci/prepare-sqlx

# Publish api/openapi.json after the API has changed
openapi:
    cargo run -q -p api --example openapi > target/openapi.json
    mv target/openapi.json api/openapi.json

# How fast it is here, beside what the database can do
bench *options:
    cargo run --release -- bench {{ options }}

# Which lines the tests run; needs cargo-llvm-cov
coverage:
    cargo llvm-cov --workspace --locked --html
    cargo llvm-cov report --summary-only

# The documentation of every crate, with no link that leads nowhere
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
