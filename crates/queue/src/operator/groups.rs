//! Dead letters grouped by their errors.

use serde::Serialize;
use time::OffsetDateTime;

use super::Operator;
use crate::{ReadTime, store::operator::groups as sql};
use runtime::error::Error;

/// The dead letters of a queue that have the same error, apart from numbers, ids and quoted parts.
#[derive(Debug, Clone, Serialize)]
pub struct ErrorGroup {
    pub queue: String,
    /// Names the group in commands; empty for jobs that failed before groups were recorded.
    pub group: String,
    /// The number of its dead letters; see `is_capped`.
    pub count: i64,
    /// Whether counting stopped at `count`.
    pub is_capped: bool,
    /// Its share of the queue's counted dead letters, from 0 to 1.
    pub share: f64,
    /// Those of the newest 1,000 that died in the last 15 minutes.
    pub died_in_15_min: i64,
    /// When its oldest job died.
    #[serde(with = "time::serde::rfc3339::option")]
    pub first_died_at: Option<OffsetDateTime>,
    /// When the newest of them died.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_died_at: Option<OffsetDateTime>,
    /// The last error of the newest job.
    pub sample_error: Option<String>,
    /// The oldest and the newest job.
    pub oldest_job: String,
    pub newest_job: String,
}

/// Counting the dead letters of one group stops here.
pub const MAX_COUNTED: i64 = 10_000;

impl Operator {
    /// Groups the dead letters of one queue or of all, largest groups first, at most 200 groups. Its cost has a bound,
    /// however many dead letters there are.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn dead_groups(&self, queue: Option<&str>) -> Result<Vec<ErrorGroup>, Error> {
        self.groups_counted_to(queue, MAX_COUNTED).await
    }

    /// The same, with another end of counting.
    pub(super) async fn groups_counted_to(&self, queue: Option<&str>, most: i64) -> Result<Vec<ErrorGroup>, Error> {
        let rows = sql::dead_groups(&self.pool, queue, most).await?;
        let total = |queue: &str| rows.iter().filter(|row| row.queue == queue).map(|row| row.count).sum::<i64>().max(1);
        let mut groups: Vec<ErrorGroup> = rows
            .iter()
            .map(|row| ErrorGroup {
                queue: row.queue.clone(),
                group: row.group.clone(),
                count: row.count,
                is_capped: row.count >= most,
                // Both numbers are far below 2^52.
                #[allow(clippy::cast_precision_loss)]
                share: row.count as f64 / total(&row.queue) as f64,
                died_in_15_min: row.recent,
                first_died_at: row.first_died_at.map(ReadTime::into),
                last_died_at: row.last_died_at.map(ReadTime::into),
                sample_error: row.sample_error.clone(),
                oldest_job: row.oldest_job.clone(),
                newest_job: row.newest_job.clone(),
            })
            .collect();
        groups.sort_by(|one, other| other.count.cmp(&one.count).then_with(|| one.group.cmp(&other.group)));
        Ok(groups)
    }
}
