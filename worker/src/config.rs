//! Configuration of a worker process.

use std::net::SocketAddr;

use jobs::app;
use runtime::{
    config::{ConfigErrors, EnvReader},
    db::Database,
};

/// The configuration of a worker process.
#[derive(Debug, Clone)]
pub struct Config {
    pub jobs: app::Config,
    /// `DATABASE_URL`
    pub database: Database,
    /// `HOST`, `WORKER_HEALTH_PORT`: the address of the health endpoints; none are served while the port is unset.
    pub health: Option<SocketAddr>,
}

impl Config {
    /// Reads the process environment.
    ///
    /// # Errors
    /// All problems of the configuration at once.
    pub fn from_env() -> Result<Self, ConfigErrors> {
        let mut vars = EnvReader::from_env();
        let jobs = app::Config::read(&mut vars);
        let health = health_address(&mut vars);
        let database = app::require_database(&mut vars, &jobs);
        app::require_choices(&mut vars, &jobs);
        vars.finish(database.map(|database| Self { jobs, database, health }))?.ok_or_else(ConfigErrors::default)
    }
}

/// Reads `HOST` and `WORKER_HEALTH_PORT`: the address of the health endpoints, if the port is set.
pub fn health_address(vars: &mut EnvReader) -> Option<SocketAddr> {
    let host = vars.host();
    let port = vars.text("WORKER_HEALTH_PORT").map(|_| vars.number("WORKER_HEALTH_PORT", 9100u16, 0..=65535));
    port.map(|port| SocketAddr::new(host, port))
}
