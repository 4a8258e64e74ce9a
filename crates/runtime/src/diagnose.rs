//! Why there is no session: a pool that gave up says only that its time was over.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{Connection, PgConnection, PgPool, postgres::PgConnectOptions};
use tokio::{sync::Mutex, time::timeout};

use super::{pooler, settings};
use crate::error::causes;

/// Together with the wait for a session, below the time limit of a statement.
const LIMIT: Duration = Duration::from_millis(800);
/// Callers that give up at the same time share one attempt.
const KEPT: Duration = Duration::from_secs(1);

struct Cause {
    of: Arc<PgConnectOptions>,
    at: Instant,
    text: String,
}

/// The causes that were last found, one for each pool; the lock makes it one attempt at a time.
static CAUSES: Mutex<Vec<Cause>> = Mutex::const_new(Vec::new());

/// The error of a caller that waited so long for a session of this pool.
pub(super) async fn no_session(pool: &PgPool, waited: Duration) -> sqlx::Error {
    let text = format!("no database session within {} s: {}", waited.as_secs(), cause(pool).await);
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text))
}

/// Finds the cause by one attempt to connect outside the pool.
pub(super) async fn cause(pool: &PgPool) -> String {
    let options = pool.connect_options();
    let silent = || format!("no answer from {}:{}", options.get_host(), options.get_port());
    let found = async {
        let mut known = CAUSES.lock().await;
        known.retain(|cause| cause.at.elapsed() < KEPT);
        if let Some(cause) = known.iter().find(|cause| Arc::ptr_eq(&cause.of, &options)) {
            return cause.text.clone();
        }
        // Less than the caller's own limit, so that the finding is kept for those who wait for the lock.
        let text = match timeout(LIMIT.mul_f64(0.8), connect(pool, &options)).await {
            Ok(Ok(())) => format!("all {} sessions of this process are in use", pool.options().get_max_connections()),
            Ok(Err(error)) => causes(&error),
            Err(_elapsed) => silent(),
        };
        known.push(Cause { of: options.clone(), at: Instant::now(), text: text.clone() });
        text
    };
    timeout(LIMIT, found).await.unwrap_or_else(|_| silent())
}

async fn connect(pool: &PgPool, options: &PgConnectOptions) -> sqlx::Result<()> {
    let mut session = PgConnection::connect_with(options).await?;
    settings::open(&mut session, pooler::of(pool)).await?;
    // It has said all that it can: whether it says goodbye does not matter.
    let _ = session.close().await;
    Ok(())
}

/// What an operator can do about an error that ends no session but prevents each.
pub(super) fn hint(error: &sqlx::Error) -> Option<&'static str> {
    let code = error.as_database_error()?.code()?;
    Some(match &*code {
        // PgBouncer knows few start-up parameters, PostgreSQL knows all that we send.
        "08P01" => "for a PgBouncer, set DATABASE_POOLER=transaction",
        "28P01" | "28000" => "the server refuses the user or the password of DATABASE_URL, or its pg_hba.conf does",
        "3D000" => "the database of DATABASE_URL does not exist: create it, then run `millrace migrate`",
        "42501" => "the user of DATABASE_URL may not do that: grant it",
        "42704" => "Millrace needs PostgreSQL 15 or newer",
        "53300" => "the server has no free session: raise its max_connections, or run fewer processes",
        _ => return None,
    })
}
