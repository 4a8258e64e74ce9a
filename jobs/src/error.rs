//! The two ways in which a feature can fail that are nobody's input.

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
    /// Sorts a database error: connection trouble, a restart, overload and time limits pass; the rest is our fault.
    fn from(error: sqlx::Error) -> Self {
        let passing = match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            // Class 08 connection, 28 and 3D a server that does not let us in (yet), 40 rollback, 53 resources, 55 lock,
            // 57 operator intervention, 58 system; 25006 is a server that has become read-only, as in a failover.
            sqlx::Error::Database(error) => error.code().is_some_and(|code| {
                matches!(code.get(..2), Some("08" | "28" | "3D" | "40" | "53" | "55" | "57" | "58")) || code == "25006"
            }),
            _ => false,
        };
        if passing { Self::Unavailable(error.to_string()) } else { Self::Internal(error.to_string()) }
    }
}
