//! Connections to PostgreSQL, with the session settings that our promises need whatever the server's defaults are.

use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use sqlx::{
    ConnectOptions, Connection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    database_url,
    pooler::{self, Pooler},
};

/// No statement of ours needs longer; one that does is stuck behind a lock or a dying server, and is retried.
pub(super) const STATEMENT_TIMEOUT: &str = "5s";
/// A transaction that its client forgot must not hold locks for ever.
pub(super) const IDLE_IN_TRANSACTION_TIMEOUT: &str = "15s";
/// How long a caller waits for a free connection before the answer is 503 or a retry.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// A session that was used this recently is used again untested: a round trip before each statement took a third of all
/// look-ups. One that broke since then fails the one caller that meets it, who may try again.
const TRUSTED: Duration = Duration::from_secs(1);

/// The server ends a statement after its own limit. One that has no answer by then has a server that hangs, or a network
/// that swallows: nobody would ever end it but us.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);
/// Sessions that still wait for such an answer when we stop are left to the end of the process.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Waits for the answer of the database, but not for ever; whether the statement was executed is then unknown.
///
/// # Errors
/// The statement's own, or a time-out.
pub async fn answered<T, E: From<sqlx::Error>>(statement: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let timed_out = |_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()).into());
    tokio::time::timeout(ANSWER_TIMEOUT, statement).await.unwrap_or_else(timed_out)
}

/// Closes a pool in good order as far as the server plays along.
pub async fn close(pool: &PgPool) {
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, pool.close()).await;
}

/// Where the database is.
#[derive(Clone)]
pub struct Database {
    options: PgConnectOptions,
    pooler: Pooler,
}

impl Database {
    /// Reads a `postgres://` URL.
    ///
    /// # Errors
    /// What is wrong with it, without repeating it: it may hold a password.
    pub fn parse(url: &str) -> Result<Self, String> {
        let options = database_url::read(url)?;
        let options = options.log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(1));
        Ok(Self { options, pooler: Pooler::None })
    }

    /// The same database through this pooler.
    #[must_use]
    pub fn through(self, pooler: Pooler) -> Self {
        Self { pooler, ..self }
    }

    /// Whether sessions are ours, as LISTEN and a migration need them.
    pub fn has_sessions(&self) -> bool {
        self.pooler == Pooler::None
    }

    /// How to open a session; `role` is what an operator sees in `pg_stat_activity`.
    pub fn session(&self, role: &str) -> PgConnectOptions {
        if self.pooler == Pooler::Transaction {
            return pooler::session(self.options.clone(), role);
        }
        self.options.clone().application_name(&format!("millrace {role}")).options([
            // An acknowledged write must survive a crash of the server even where its default says otherwise.
            ("synchronous_commit", "on"),
            // Our statements are written for one plan, whatever their arrays hold. Planned for its values, the one that
            // finishes 500 of 100,000 jobs read the whole table and compared each with each: 29.6 ms instead of 3.0.
            ("plan_cache_mode", "force_generic_plan"),
            // It takes longer than anything that we ask: an overview of the queues 450 ms instead of 9.
            ("jit", "off"),
            ("statement_timeout", STATEMENT_TIMEOUT),
            ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_TIMEOUT),
            ("TimeZone", "UTC"),
        ])
    }

    /// A pool of at most `connections` sessions, opened when they are first needed.
    pub fn pool(&self, role: &str, connections: u32) -> PgPool {
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .before_acquire(|session, state| {
                Box::pin(async move {
                    if state.idle_for > TRUSTED {
                        session.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(self.session(role))
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Database({self})")
    }
}

/// Its URL without the password.
impl std::fmt::Display for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'/').add(b':').add(b'?').add(b'@');
        let escape = |text| utf8_percent_encode(text, ESCAPED);
        let (user, port) = (self.options.get_username(), self.options.get_port());
        // What libpq does without the name of a database.
        let database = escape(self.options.get_database().unwrap_or(user));
        let (user, host) = (escape(user), self.options.get_host());
        match self.options.get_socket() {
            Some(folder) => write!(f, "postgres://{user}@/{database}?host={}&port={port}", folder.display()),
            None if host.starts_with('/') => write!(f, "postgres://{user}@/{database}?host={host}&port={port}"),
            None if host.contains(':') => write!(f, "postgres://{user}@[{host}]:{port}/{database}"),
            None => write!(f, "postgres://{user}@{host}:{port}/{database}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_shown_without_its_password() {
        for (url, shown) in [
            ("postgres://u:hunter2@h/d", "postgres://u@h:5432/d"),
            ("postgres://u:hunter2@[::1]:6", "postgres://u@[::1]:6/u"),
            ("postgres://u:hunter2@/d?host=/run/pg", "postgres://u@/d?host=/run/pg&port=5432"),
            ("postgres://a%40b%0Ac:hunter2@h/d?password=hunter2", "postgres://a%40b%0Ac@h:5432/d"),
        ] {
            let database = Database::parse(url).expect(url);
            assert_eq!(database.to_string(), shown);
            assert_eq!(format!("{database:?}"), format!("Database({shown})"));
        }
    }
}
