//! Process plumbing: the database, migrations, embedded PostgreSQL, telemetry and shutdown.

mod database_url;
pub mod db;
mod diagnose;
pub mod listen;
pub mod migrate;
pub mod open_files;
pub mod pooler;
pub mod postgres;
pub mod process;
mod row_security;
mod session;
mod settings;
pub mod shutdown;
pub mod telemetry;
mod traced;
pub mod version;
pub mod writable;
