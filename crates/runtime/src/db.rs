//! Connections to PostgreSQL, with the session settings that our promises need whatever the server's defaults are.

use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    database_url, diagnose,
    migrate::{self, SchemaError},
    pooler::{self, Pooler},
    session, settings,
    writable::{self, Reuse},
};
use crate::error::causes;

/// How long a caller waits for a free connection before the answer is 503 or a retry.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// The server ends a statement after its own limit. One that has no answer by then has a server that hangs, or a network
/// that swallows: nobody would ever end it but us.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);
/// Sessions that still wait for such an answer when we stop are left to the end of the process.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Waits for the answer of the database, but not for ever; whether the statement was executed is then unknown.
///
/// # Errors
/// The statement's own, or a time-out.
pub async fn with_time_limit<T, E: From<sqlx::Error>>(statement: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let timed_out = |_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()).into());
    tokio::time::timeout(ANSWER_TIMEOUT, statement).await.unwrap_or_else(timed_out)
}

/// Makes sure that the database can be reached, and has this program's schema or that of a release after it.
///
/// # Errors
/// Why not, within less than a second after `limit`.
pub async fn check_schema(pool: &PgPool, limit: Duration) -> Result<(), String> {
    in_time(pool, limit, migrate::check_again(pool)).await
}

/// As [`check_schema`], and that the database can be written to.
///
/// # Errors
/// Why not, within less than a second after `limit`.
pub async fn ready(pool: &PgPool, limit: Duration) -> Result<(), String> {
    let checked = async {
        migrate::check_again(pool).await?;
        Ok(session::probe(pool).await?)
    };
    in_time(pool, limit, checked).await?;
    writable::refusal().map_or(Ok(()), Err)
}

async fn in_time(
    pool: &PgPool,
    limit: Duration,
    check: impl Future<Output = Result<(), SchemaError>>,
) -> Result<(), String> {
    match tokio::time::timeout(limit, check).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(causes(&error)),
        Err(_elapsed) => Err(format!("the database did not reply in time: {}", diagnose::cause(pool).await)),
    }
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
        self.options.clone().application_name(&format!("millrace {role}")).options(settings::options())
    }

    /// Opens a session that belongs to no pool.
    ///
    /// # Errors
    /// It cannot be opened.
    pub async fn connect(&self, role: &str) -> sqlx::Result<PgConnection> {
        let mut session = PgConnection::connect_with(&self.session(role)).await?;
        settings::open(&mut session, self.pooler).await?;
        Ok(session)
    }

    /// A pool of at most `connections` sessions, opened when they are first needed.
    pub fn pool(&self, role: &str, connections: u32) -> PgPool {
        let pooler = self.pooler;
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .after_connect(move |session, _| {
                Box::pin(async move {
                    writable::found(settings::open(session, pooler).await?);
                    Ok(())
                })
            })
            .before_acquire(|session, state| {
                Box::pin(async move {
                    let usable = match writable::reuse(state.age, state.idle_for) {
                        Reuse::AsItIs => Ok(true),
                        Reuse::Never => Ok(false),
                        Reuse::AfterPing => settings::ping(session).await.map(|()| true),
                        Reuse::AfterProbe => settings::probe(session).await.map(|read_only| {
                            writable::found(read_only);
                            !read_only
                        }),
                    };
                    // Closed and replaced by a new one, at once: no error, only news about the others.
                    Ok(usable.inspect_err(writable::note).unwrap_or(false))
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
