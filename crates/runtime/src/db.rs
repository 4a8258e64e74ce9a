//! Connections to PostgreSQL. Each session gets our own settings, because our guarantees must not depend on the server's
//! defaults.

use std::{sync::Arc, time::Duration};

use metrics::{Counter, counter};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    database_url,
    kept_sessions::{self, KeptSessions},
    pooler::{self, Pooler},
    settings, writable,
};

/// How long a caller waits for a free connection. After that, a request gets 503 and a job is retried.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a stop waits for sessions to close. The end of the process closes sessions that still wait for a response.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The metric of the statements of each pool.
pub(super) const STATEMENTS: &str = "millrace_db_statements_total";

/// A pool of sessions. A statement reaches them only through an [`executor`](super::executor), so each one has a time
/// limit and a span, and works through a pooler.
#[derive(Debug, Clone)]
pub struct Pool {
    pub(super) sessions: PgPool,
    /// Sessions that wait for their next statement; `None` for a pool that the caller has opened.
    pub(super) kept: Option<Arc<KeptSessions>>,
    pub(super) pooler: Pooler,
    /// The time limit of its statements, if it is not the usual one.
    pub(super) limit: Option<Duration>,
    /// Counts its statements.
    pub(super) statements: Counter,
}

/// How many sessions a pool has opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionCounts {
    pub used: u32,
    pub idle: u32,
}

impl Pool {
    /// Closes the pool. Waits at most 1 s for its sessions to end in good order.
    pub async fn close(&self) {
        // From now on the pool closes what returns to it.
        let closing = self.sessions.close();
        if let Some(kept) = &self.kept {
            kept.close();
        }
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
    }

    /// How long a caller waits for a session.
    pub(super) fn wait_limit(&self) -> Duration {
        self.limit.unwrap_or(ACQUIRE_TIMEOUT)
    }

    /// Counts the sessions that are open now.
    pub fn session_counts(&self) -> SessionCounts {
        // The pool is read twice without a lock, so `idle` may be one more than its size.
        let kept = self.kept.as_ref().map_or(0, |kept| kept.count());
        let idle = u32::try_from(self.sessions.num_idle() + kept).unwrap_or(u32::MAX);
        SessionCounts { used: self.sessions.size().saturating_sub(idle), idle }
    }
}

/// A pool that the caller has opened, without a pooler in front of the database. Its sessions keep their own settings.
impl From<PgPool> for Pool {
    fn from(sessions: PgPool) -> Self {
        Self { sessions, kept: None, pooler: Pooler::None, limit: None, statements: Counter::noop() }
    }
}

pub(super) async fn close(sessions: &PgPool) {
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, sessions.close()).await;
}

/// The address of the database, and the pooler in front of it.
#[derive(Clone)]
pub struct Database {
    options: PgConnectOptions,
    pooler: Pooler,
}

impl Database {
    /// Reads a `postgres://` URL.
    ///
    /// # Errors
    /// When the URL is wrong. The text gives the reason without the URL, which may contain a password.
    pub fn parse(url: &str) -> Result<Self, String> {
        let options = database_url::parse(url)?;
        let options = options.log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(1));
        Ok(Self { options, pooler: Pooler::None })
    }

    /// Returns the same database, reached through this pooler.
    #[must_use]
    pub fn with_pooler(self, pooler: Pooler) -> Self {
        Self { pooler, ..self }
    }

    /// Whether each connection has its own server session. LISTEN and migrations need one.
    pub fn has_sessions(&self) -> bool {
        self.pooler == Pooler::None
    }

    /// The options of a new session. An operator sees `role` in `pg_stat_activity`.
    pub fn session_options(&self, role: &str) -> PgConnectOptions {
        self.limited_session_options(role, None)
    }

    fn limited_session_options(&self, role: &str, limit: Option<Duration>) -> PgConnectOptions {
        if self.pooler == Pooler::Transaction {
            return pooler::session_options(self.options.clone(), role);
        }
        self.options.clone().application_name(&format!("millrace {role}")).options(settings::startup_options(limit))
    }

    /// Opens a session that belongs to no pool.
    ///
    /// # Errors
    /// When the session cannot be opened.
    pub async fn connect(&self, role: &str) -> sqlx::Result<PgConnection> {
        let mut session = PgConnection::connect_with(&self.session_options(role)).await?;
        settings::apply(&mut session, self.pooler, None).await?;
        Ok(session)
    }

    /// A pool of at most `connections` sessions. Each is opened when it is first needed.
    pub fn pool(&self, role: &'static str, connections: u32) -> Pool {
        self.open_pool(role, connections, None)
    }

    /// A pool whose callers wait at most `limit` for a session, and whose statements run at most as long.
    pub fn limited_pool(&self, role: &'static str, connections: u32, limit: Duration) -> Pool {
        self.open_pool(role, connections, Some(limit))
    }

    fn open_pool(&self, role: &'static str, connections: u32, limit: Option<Duration>) -> Pool {
        let pooler = self.pooler;
        let sessions = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(limit.unwrap_or(ACQUIRE_TIMEOUT))
            .test_before_acquire(false)
            .after_connect(move |session, _| {
                Box::pin(async move {
                    writable::record_probe(settings::apply(session, pooler, limit).await?);
                    Ok(())
                })
            })
            .before_acquire(|session, state| {
                Box::pin(async move {
                    // A session that cannot be used is replaced at once.
                    Ok(kept_sessions::check_session(session, writable::reuse(state.age, state.idle_for)).await)
                })
            })
            .connect_lazy_with(self.limited_session_options(role, limit));
        let kept = Some(Arc::new(KeptSessions::new(connections)));
        Pool { sessions, kept, pooler, limit, statements: counter!(STATEMENTS, "pool" => role) }
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Database({self})")
    }
}

/// The URL without its password.
impl std::fmt::Display for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'/').add(b':').add(b'?').add(b'@');
        let escape = |text| utf8_percent_encode(text, ESCAPED);
        let (user, port) = (self.options.get_username(), self.options.get_port());
        // Without a database name, libpq uses the user's name.
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
    fn the_database_is_displayed_without_its_password() {
        for (url, displayed) in [
            ("postgres://u:hunter2@h/d", "postgres://u@h:5432/d"),
            ("postgres://u:hunter2@[::1]:6", "postgres://u@[::1]:6/u"),
            ("postgres://u:hunter2@/d?host=/run/pg", "postgres://u@/d?host=/run/pg&port=5432"),
            ("postgres://a%40b%0Ac:hunter2@h/d?password=hunter2", "postgres://a%40b%0Ac@h:5432/d"),
        ] {
            let database = Database::parse(url).expect(url);
            assert_eq!(database.to_string(), displayed);
            assert_eq!(format!("{database:?}"), format!("Database({displayed})"));
        }
    }
}
