//! Embedded PostgreSQL, for a start without `DATABASE_URL`: found or fetched, initialised, started and stopped.
//!
//! | where | what |
//! |---|---|
//! | `cluster` | the public type: [`Cluster::start`], `url`, `ensure_database`, `stop` |
//! | `settings` | how it is started |
//! | `locate`, `fetch` | find or download the binaries |
//! | `account` | the system account that runs the server, since PostgreSQL refuses root |
//! | `directories` | folders for data and sockets that this account can enter |
//! | `create` | runs initdb; an interrupted run leaves no incomplete data directory |
//! | `launch` | starts the server process with our settings |
//! | `server` | a running server: found again after a crash of ours, stopped within a time limit |
//! | `tool` | runs a short-lived program with a time limit |

mod account;
mod cluster;
mod create;
mod directories;
mod error;
mod fetch;
mod launch;
mod locate;
mod server;
mod settings;
mod tool;

pub use cluster::Cluster;
pub use error::Error;
pub use server::RunningServer;
pub use settings::{Progress, Search, Settings};
