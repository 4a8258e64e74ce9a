//! The runtime of every process: database, migrations, configuration, telemetry, shutdown, errors, and clients of other
//! servers. It knows no feature.

pub mod clients;
pub mod clock;
pub mod config;
mod database_url;
pub mod db;
mod diagnose;
pub mod doctor;
pub mod duration;
pub mod error;
pub mod executor;
mod kept_sessions;
pub mod listen;
pub mod migrate;
pub mod mutex;
pub mod open_files;
pub mod pooler;
pub mod process;
pub mod readiness;
mod row_security;
pub mod sabotage;
pub mod secret;
mod session;
mod settings;
pub mod shutdown;
mod statement_span;
pub mod task;
pub mod telemetry;
pub mod time_limit;
pub mod version;
pub mod writable;
