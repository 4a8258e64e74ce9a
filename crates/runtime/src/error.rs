//! Failures that are not the caller's fault: temporary unavailability and internal errors. Also formats error chains.

use std::{any::Any, error::Error as StdError, time::Duration};

use sqlx::postgres::PgDatabaseError;

use crate::writable;

/// A failure of a feature that is not the caller's fault.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A dependency, mostly the database, cannot be reached or cannot take the work now. Nothing was recorded, and the
    /// caller may retry.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// Too many callers wait. Nothing was recorded, and the caller may retry after this time.
    #[error("overloaded: too many callers wait")]
    Overloaded(Duration),
    /// A fault of Millrace. A retry does not help.
    #[error("internal: {0}")]
    Internal(String),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if is_temporary(&error) { Self::Unavailable(causes(&error)) } else { Self::Internal(causes(&error)) }
    }
}

/// Whether a database error is temporary: a lost connection, a restart, overload or a time limit. All others are faults
/// of Millrace.
pub fn is_temporary(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        // Classes: 08 connection, 28 and 3D access not (yet) allowed, 40 rollback, 53 resources, 55 lock, 57 operator
        // intervention, 58 system. Codes: 25006 read-only server, as after a failover; 25P03 and 25P04 session idle or
        // open for too long.
        sqlx::Error::Database(database_error) => {
            database_error.code().is_some_and(|code| {
                matches!(code.get(..2), Some("08" | "28" | "3D" | "40" | "53" | "55" | "57" | "58"))
                    || matches!(&*code, "25006" | "25P03" | "25P04")
            }) || writable::is_out_of_ids(error)
        }
        _ => false,
    }
}

/// Whether the server has refused the last statement of a transaction, so that the transaction certainly wrote nothing. After
/// every other error, such as a lost connection or a late response, the server may have committed it.
pub fn is_rolled_back(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(_)) && !writable::is_dead(error)
}

/// Formats an error with all its sources, as in `error sending request: tcp connect error: Connection refused (os error
/// 111)`. A source is left out if the text already contains it.
///
/// Use it wherever an error leaves the process: in logs, in the errors of a job, in the reason of a 503.
pub fn causes(error: &(dyn StdError + 'static)) -> String {
    let server_error = database_error(error);
    // sqlx appends a line number of the server's source code to the server's message.
    let text = |error: &dyn StdError| {
        let text = error.to_string();
        server_error.map_or(text.clone(), |server| text.replace(&server.to_string(), server.message()))
    };
    let mut all = text(error);
    let mut next = error.source();
    while let Some(source) = next {
        let cause = text(source);
        if !all.contains(&cause) {
            all.push_str(": ");
            all.push_str(&cause);
        }
        next = source.source();
    }
    all
}

/// Whether the `failures`-th failure in a row is logged: the first, the second, the fourth, the eighth and so on. So a
/// loop that retries several times a second does not fill the log during an outage.
pub fn is_logged(failures: u32) -> bool {
    failures.is_power_of_two()
}

/// The message of a panic.
pub fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&'static str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// The PostgreSQL server's error in a chain of errors, if there is one.
fn database_error<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e PgDatabaseError> {
    let mut next = Some(error);
    while let Some(error) = next {
        let database = error.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
        if let Some(database_error) = database.and_then(|error| error.try_downcast_ref()) {
            return Some(database_error);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Self>>,
    }

    #[test]
    fn failures_in_a_row_are_logged_ever_more_rarely() {
        let logged: Vec<u32> = (0..=3600).filter(|failures| is_logged(*failures)).collect();
        assert_eq!(logged, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048]);
    }

    #[test]
    fn only_a_refusal_proves_that_nothing_was_written() {
        let lost = [std::io::ErrorKind::TimedOut, std::io::ErrorKind::ConnectionReset];
        assert!(lost.into_iter().all(|kind| !is_rolled_back(&sqlx::Error::Io(kind.into()))));
        assert!(!is_rolled_back(&sqlx::Error::WorkerCrashed));
    }

    #[test]
    fn every_cause_is_listed_once() {
        let refused = Layer { text: "Connection refused (os error 111)", source: None };
        let connect = Layer { text: "tcp connect error", source: Some(Box::new(refused)) };
        let sending = Layer { text: "error sending request", source: Some(Box::new(connect)) };
        assert_eq!(causes(&sending), "error sending request: tcp connect error: Connection refused (os error 111)");
        let inner = Layer { text: "disk full", source: None };
        assert_eq!(
            causes(&Layer { text: "write failed: disk full", source: Some(Box::new(inner)) }),
            "write failed: disk full"
        );
    }
}
