//! Embedded PostgreSQL, for a start without `DATABASE_URL`: found or fetched, initialised, started and stopped.

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
