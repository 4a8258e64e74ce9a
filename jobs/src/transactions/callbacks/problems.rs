//! The destinations with a problem, as `/metrics`, the first page and `millrace status` show them.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::{model::DestinationProblem, store};
use runtime::{db::Pool, error::Error};

/// Readers within this time share one statement, however many there are.
const FRESH: Duration = Duration::from_secs(2);
/// The list is small. A part of a page has 1 s.
const READ_LIMIT: Duration = Duration::from_millis(500);
/// While it cannot be read, an older list is shown for this long.
const MAX_AGE: Duration = Duration::from_secs(60);

/// The list of one process.
pub(super) struct DestinationProblems {
    pool: Pool,
    latest: Mutex<Option<Latest>>,
}

struct Latest {
    read: Instant,
    problems: Arc<[DestinationProblem]>,
}

impl DestinationProblems {
    /// Creates it without a list; the first reader reads it.
    pub(super) fn new(pool: &Pool) -> Self {
        Self { pool: pool.clone(), latest: Mutex::new(None) }
    }

    /// The destinations that are failing or disabled, by name. They are at most two seconds old, while the database is
    /// available.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is not available, or not in time, for more than a minute.
    pub(super) async fn list(&self) -> Result<Arc<[DestinationProblem]>, Error> {
        let mut latest = self.latest.lock().await;
        if let Some(known) = latest.as_ref().filter(|known| known.read.elapsed() < FRESH) {
            return Ok(known.problems.clone());
        }
        let late = |_| Err(Error::Unavailable("they were not read in time".into()));
        match timeout(READ_LIMIT, store::problems(&self.pool)).await.unwrap_or_else(late) {
            Ok(problems) => {
                let problems: Arc<[DestinationProblem]> = problems.into();
                *latest = Some(Latest { read: Instant::now(), problems: problems.clone() });
                Ok(problems)
            }
            Err(error) => {
                let known = latest.as_ref().filter(|known| known.read.elapsed() < MAX_AGE);
                known.map(|known| known.problems.clone()).ok_or(error)
            }
        }
    }

    /// Makes the next reader read the list, because this process has changed it.
    pub(super) async fn forget(&self) {
        *self.latest.lock().await = None;
    }
}
