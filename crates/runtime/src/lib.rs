//! What every process needs and no feature owns: the database, migrations, configuration, telemetry, shutdown, errors, and
//! clients of other servers.

pub mod clients;
pub mod clock;
pub mod config;
mod database_url;
pub mod db;
mod diagnose;
pub mod error;
pub mod listen;
pub mod migrate;
pub mod open_files;
pub mod pooler;
pub mod process;
mod row_security;
mod session;
mod settings;
pub mod shutdown;
pub mod telemetry;
mod traced;
pub mod version;
pub mod writable;
