//! A PostgreSQL of our own for whoever has set no `DATABASE_URL`: found or fetched, made, started and stopped.
//!
//! | where | what |
//! |---|---|
//! | `cluster` | the one type to use: [`Cluster::start`], `url`, `ensure_database`, `stop` |
//! | `locate`, `fetch` | where the binaries come from |
//! | `account` | PostgreSQL refuses root: who runs it instead |
//! | `place` | where data and sockets may lie so that this account reaches them |
//! | `create` | initdb, such that an interrupted one leaves nothing half-made |
//! | `launch` | the server process, started with our settings |
//! | `server` | a running server: recognised after our own death, stopped within a limit |
//! | `tool` | a short-lived program with a time limit |

mod account;
mod cluster;
mod create;
mod error;
mod fetch;
mod launch;
mod locate;
mod place;
mod server;
mod tool;

pub use cluster::{Cluster, Progress, Settings};
pub use error::Error;
pub use locate::Search;
pub use server::Running;
