//! The intervals of a worker.

use std::time::Duration;

use super::cleaner::Retention;

/// The intervals of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two renewals of the lease.
    pub heartbeat: Duration,
    /// How long a worker may be silent before others take its jobs.
    pub lease: Duration,
    /// Between two checks for jobs of dead workers.
    pub rescue: Duration,
    /// Between two polls for due jobs without a notification.
    pub poll: Duration,
    /// How long ended jobs are kept.
    pub retention: Retention,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(5),
            lease: Duration::from_secs(15),
            rescue: Duration::from_secs(2),
            poll: Duration::from_millis(250),
            retention: Retention::DEFAULT,
        }
    }
}
