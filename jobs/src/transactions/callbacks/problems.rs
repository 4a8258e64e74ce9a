//! The destinations with a problem, as `/metrics`, the first page and `millrace status` show them.

use std::{
    sync::{Arc, Mutex as Shared},
    time::Duration,
};

use tokio::{sync::Mutex, time::Instant};

use super::{model::DestinationProblem, store};
use runtime::{db::Pool, error::Error, mutex::lock};

/// Readers within this time share one statement, however many there are.
const FRESH: Duration = Duration::from_secs(2);
/// While it cannot be read, an older list is shown for this long.
const MAX_AGE: Duration = Duration::from_secs(60);

/// The list of one process.
pub(super) struct DestinationProblems {
    pool: Pool,
    latest: Shared<Option<Latest>>,
    /// Held by the reader that reads.
    turn: Mutex<()>,
}

struct Latest {
    read: Instant,
    problems: Arc<[DestinationProblem]>,
}

impl DestinationProblems {
    /// Creates it without a list; the first reader reads it.
    pub(super) fn new(pool: &Pool) -> Self {
        Self { pool: pool.clone(), latest: Shared::new(None), turn: Mutex::new(()) }
    }

    /// The destinations that are failing or disabled, by name. They are at most two seconds old, while the database is
    /// available. The reader waits for them until `late`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is not available, or not in time, for more than a minute.
    pub(super) async fn list(&self, late: impl Future<Output = ()>) -> Result<Arc<[DestinationProblem]>, Error> {
        let read = tokio::select! {
            read = self.read() => read,
            () = late => Err(Error::Unavailable("they were not read in time".into())),
        };
        read.or_else(|error| self.known(MAX_AGE).ok_or(error))
    }

    /// Makes the next reader read the list, because this process has changed it.
    pub(super) async fn forget(&self) {
        let _turn = self.turn.lock().await;
        *lock(&self.latest) = None;
    }

    async fn read(&self) -> Result<Arc<[DestinationProblem]>, Error> {
        let _turn = self.turn.lock().await;
        if let Some(fresh) = self.known(FRESH) {
            return Ok(fresh);
        }
        let problems: Arc<[DestinationProblem]> = store::problems(&self.pool).await?.into();
        *lock(&self.latest) = Some(Latest { read: Instant::now(), problems: problems.clone() });
        Ok(problems)
    }

    /// The latest list, if it is not older than this.
    fn known(&self, age: Duration) -> Option<Arc<[DestinationProblem]>> {
        let latest = lock(&self.latest);
        latest.as_ref().filter(|known| known.read.elapsed() < age).map(|known| known.problems.clone())
    }
}
