//! End-to-end tests across processes; one module per feature, with the feature's name.

// clippy.toml allows these in test functions; the helper functions are part of the tests.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a test's client has no proxy and other limits than the product's")]

mod architecture;
mod clients;
#[cfg(feature = "smart-contract")]
mod contract;
mod deploy;
mod document;
mod embedded_postgres;
mod faults;
mod habits;
mod harness;
mod http;
mod items;
mod logs;
mod observability;
mod operator;
mod operators;
mod pgbouncer;
mod prices;
mod probes;
mod processes;
mod queue;
mod rate_limit;
mod rates;
mod readme;
mod schedule;
mod search;
mod smoke;
mod transactions;
mod upgrades;
mod users;
