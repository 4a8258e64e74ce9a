# Shortcuts for the commands of README.md; each works without `just` as well.

[private]
default:
    @just --list

# Every test of every crate
test:
    cargo test

# What must hold before a change lands
ci:
    bash .ci/run

# Formatting and lints
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# How fast it is here, beside what the database can do
bench:
    cargo run --release -- bench

# Rewrite .sqlx/ after a query or a migration has changed
prepare:
    bash .ci/prepare-sqlx

# Publish api/openapi.json after the API has changed
openapi:
    cargo run -q -p api --example openapi > target/openapi.json
    mv target/openapi.json api/openapi.json
