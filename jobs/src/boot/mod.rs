//! Process plumbing: the database, migrations, embedded PostgreSQL, telemetry and shutdown.

mod database_url;
pub mod db;
pub mod listen;
pub mod migrate;
pub mod open_files;
pub mod pooler;
pub mod postgres;
pub mod process;
pub mod shutdown;
pub mod telemetry;
mod traced;
pub mod version;
