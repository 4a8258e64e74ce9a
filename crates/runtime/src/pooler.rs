//! Support for PgBouncer in transaction mode.
//!
//! In transaction mode a server session is ours for one transaction only, so three things need a workaround:
//!
//! - PgBouncer refuses the start-up parameter `options`, and a `SET` would not last. So the statement that begins a
//!   transaction applies the settings with `SET LOCAL` (`session::begin`).
//! - sqlx parses a statement in one round trip and executes it in the next, which may reach another server session. So
//!   each statement runs inside a transaction, which first deallocates prepared statements of other clients.
//! - `LISTEN` receives no notifications. So `listen::listen` does not connect, and the queue relies on polling.

use sqlx::postgres::PgConnectOptions;

/// The pooler between this process and the database, as set by `DATABASE_POOLER`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pooler {
    /// No pooler, or one that gives each of our connections its own server session.
    #[default]
    None,
    /// PgBouncer in transaction mode, or a pooler that behaves like it.
    Transaction,
}

impl Pooler {
    /// Parses the value of `DATABASE_POOLER`.
    ///
    /// # Errors
    /// When the value is unknown. The text lists the valid values.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "transaction" => Ok(Self::Transaction),
            _ => Err("must be none or transaction, such as DATABASE_POOLER=transaction".into()),
        }
    }
}

/// The end of the application name of every session through a pooler, for operators.
const NAME_SUFFIX: &str = " through a pooler";

/// The options of a session through a pooler: without those that PgBouncer would refuse or lose.
pub(super) fn session_options(options: PgConnectOptions, role: &str) -> PgConnectOptions {
    // PgBouncer refuses `extra_float_digits`. PostgreSQL 12 and later print floats exactly without it.
    let options = options.application_name(&format!("millrace {role}{NAME_SUFFIX}")).extra_float_digits(None);
    options.statement_cache_capacity(0)
}
