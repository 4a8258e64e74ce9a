//! The time limit of a statement.

use std::time::Duration;

/// How long a statement waits for the server's response. The server cancels statements after 5 s. If no response arrives
/// by then, the server hangs or the network drops packets, and only this limit ends the wait.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(6);

/// Runs a statement with a time limit. After a time-out it is unknown whether the server executed the statement.
///
/// # Errors
/// When the statement fails, or when the server does not respond within 6 s.
pub async fn with_time_limit<T, E: From<sqlx::Error>>(statement: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let timed_out = |_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()).into());
    tokio::time::timeout(RESPONSE_TIMEOUT, statement).await.unwrap_or_else(timed_out)
}
