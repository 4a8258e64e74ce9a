//! Diagnosis of connection failures: after a time-out, sqlx's pool does not report the cause.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::{sync::Mutex, time::timeout};

use super::{db::Pool, settings};
use crate::error::causes;

/// The limit of one diagnosis. With the wait for a session, it stays below the time limit of a statement.
const LIMIT: Duration = Duration::from_millis(800);
/// How long a result is reused, so that callers that time out together share one attempt.
const CACHE_TIME: Duration = Duration::from_secs(1);

/// The result of one attempt to connect.
struct Diagnosis {
    options: Arc<PgConnectOptions>,
    made_at: Instant,
    text: String,
}

/// The newest diagnosis of each pool. The lock allows one attempt at a time.
static DIAGNOSES: Mutex<Vec<Diagnosis>> = Mutex::const_new(Vec::new());

/// The error of a caller that waited for a session of this pool in vain.
pub(super) async fn acquire_error(pool: &Pool, waited: Duration) -> sqlx::Error {
    let text = format!("no database session within {} s: {}", waited.as_secs(), connection_failure(pool).await);
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text))
}

/// Finds the cause by one attempt to connect outside the pool.
pub(super) async fn connection_failure(pool: &Pool) -> String {
    let options = pool.sessions.connect_options();
    let timed_out = || format!("no response from {}", address(&options));
    let diagnosis = async {
        let mut diagnoses = DIAGNOSES.lock().await;
        diagnoses.retain(|diagnosis| diagnosis.made_at.elapsed() < CACHE_TIME);
        if let Some(known) = diagnoses.iter().find(|known| Arc::ptr_eq(&known.options, &options)) {
            return known.text.clone();
        }
        // Shorter than the caller's limit, so that the result is stored for callers that wait for the lock.
        let text = match timeout(LIMIT.mul_f64(0.8), connect(pool, &options)).await {
            Ok(Ok(())) => {
                format!("all {} sessions of this process are in use", pool.sessions.options().get_max_connections())
            }
            Ok(Err(error)) => causes(&error),
            Err(_elapsed) => timed_out(),
        };
        diagnoses.push(Diagnosis { options: options.clone(), made_at: Instant::now(), text: text.clone() });
        text
    };
    timeout(LIMIT, diagnosis).await.unwrap_or_else(|_| timed_out())
}

/// Where the server listens: its Unix socket, else host and port. With a socket, sqlx keeps its default as the host.
fn address(options: &PgConnectOptions) -> String {
    let port = options.get_port();
    match options.get_socket() {
        Some(folder) => format!("the socket {}", folder.join(format!(".s.PGSQL.{port}")).display()),
        None => format!("{}:{port}", options.get_host()),
    }
}

async fn connect(pool: &Pool, options: &PgConnectOptions) -> sqlx::Result<()> {
    let mut session = PgConnection::connect_with(options).await?;
    settings::apply(&mut session, pool.pooler, pool.limit).await?;
    // The result is known, so an error while closing does not matter.
    let _ = session.close().await;
    Ok(())
}

/// How an operator can correct an error that prevents every session.
pub(super) fn hint(error: &sqlx::Error) -> Option<&'static str> {
    let code = error.as_database_error()?.code()?;
    Some(match &*code {
        // PgBouncer refuses some of our start-up parameters. PostgreSQL accepts all of them.
        "08P01" => "for a PgBouncer, set DATABASE_POOLER=transaction",
        "28P01" | "28000" => "the server or its pg_hba.conf refuses the user or the password of DATABASE_URL",
        "3D000" => "the database of DATABASE_URL does not exist: create it, then run `millrace migrate`",
        "42501" => "the user of DATABASE_URL lacks this privilege: grant it",
        "42704" => "Millrace needs PostgreSQL 15 or newer",
        "53300" => "the server has no free session: raise its max_connections, or run fewer processes",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_a_socket_is_named_by_the_socket() {
        for (url, expected) in [
            ("postgres://u@db:6432/x", "db:6432"),
            ("postgres:///x?host=/run/postgresql&port=5433&user=u", "the socket /run/postgresql/.s.PGSQL.5433"),
            ("postgres://u@%2Frun%2Fpg:6432/x", "the socket /run/pg/.s.PGSQL.6432"),
        ] {
            assert_eq!(address(&url.parse().expect(url)), expected);
        }
    }
}
