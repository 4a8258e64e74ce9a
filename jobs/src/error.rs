//! Failures that are not the caller's fault, and the text of an error with all its causes.

use std::error::Error as StdError;

use sqlx::postgres::PgDatabaseError;

use crate::boot::writable;

/// Why a feature could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The database cannot be reached or cannot take the work now: the caller may try again, nothing was recorded.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// A fault of ours: trying again will not help.
    #[error("internal: {0}")]
    Internal(String),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if may_pass(&error) { Self::Unavailable(causes(&error)) } else { Self::Internal(causes(&error)) }
    }
}

/// Sorts a database error: connection trouble, a restart, overload and time limits pass; the rest is our fault.
pub(crate) fn may_pass(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        // Class 08 connection, 28 and 3D a server that does not let us in (yet), 40 rollback, 53 resources, 55 lock,
        // 57 operator intervention, 58 system; 25006 is a server that has become read-only, as in a failover; 25P03 and
        // 25P04 a session that was idle or open for too long.
        sqlx::Error::Database(refusal) => {
            refusal.code().is_some_and(|code| {
                matches!(code.get(..2), Some("08" | "28" | "3D" | "40" | "53" | "55" | "57" | "58"))
                    || matches!(&*code, "25006" | "25P03" | "25P04")
            }) || writable::is_out_of_ids(error)
        }
        _ => false,
    }
}

/// The text of an error followed by that of each of its sources, as in `error sending request: tcp connect error:
/// Connection refused (os error 111)`. A source whose text the error before it already contains is left out.
///
/// Use it wherever an error leaves the process: in logs, in the errors of a job, in the reason of a 503.
pub fn causes(error: &(dyn StdError + 'static)) -> String {
    let refusal = refusal(error);
    // sqlx ends what the server says with a line of the server's own source code.
    let text = |error: &dyn StdError| {
        let text = error.to_string();
        refusal.map_or(text.clone(), |refusal| text.replace(&refusal.to_string(), refusal.message()))
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

/// What the server said, when an error or one of its sources came from there.
fn refusal<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e PgDatabaseError> {
    let mut next = Some(error);
    while let Some(error) = next {
        let database = error.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
        if let Some(refusal) = database.and_then(|error| error.try_downcast_ref()) {
            return Some(refusal);
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
    fn every_cause_is_named_once() {
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
