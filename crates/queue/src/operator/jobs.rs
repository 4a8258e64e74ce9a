//! Lists of jobs, and the cancellation of all that a filter selects.

use futures_util::future::join;
use serde::Serialize;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use ulid::Ulid;

use super::{Operator, audit::Order};
use crate::{
    filter::Filter,
    status::{Cancelled, JobPage, JobStatus, State},
    store::{
        list,
        operator::{audit, selection},
    },
};
use runtime::{db::Pool, error::Error};

/// The jobs of one page when all pages are read.
const PAGE: u32 = 1000;
/// A filter selects at most so many jobs to cancel.
pub const MAX_CANCELLED: i64 = 10_000;
/// The jobs that a selection shows.
const SAMPLES: usize = 5;

/// The waiting or running jobs that a filter selects.
#[derive(Debug, Clone, Serialize)]
pub struct LiveJobs {
    /// Their ids, oldest first.
    #[serde(skip)]
    pub ids: Vec<String>,
    /// Their number.
    pub count: usize,
    /// Whether there may be more: at most 10,000 are selected, among the first 100,000 of the queue.
    pub is_capped: bool,
    /// The five oldest.
    pub samples: Vec<JobStatus>,
    /// All of them have ids before this one. With it, a filter does not select jobs whose ids are newer.
    pub before: String,
}

impl Operator {
    /// Lists a page of jobs, newest first; the next page begins before [`JobPage::next`]. Its cost has a bound: finished
    /// jobs have no index, so only the newest ones are searched.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn list(&self, filter: &Filter, limit: u32) -> Result<JobPage, Error> {
        let pool = &self.pool;
        let before = filter.before(OffsetDateTime::now_utc());
        // One more shows whether there is a next page.
        let mut page = filter.page(&before, i64::from(limit) + 1);
        // Each of these has an index, so all of them are searched.
        let exact = match (filter.state, &filter.group, &filter.key) {
            (Some(State::Running), ..) => Some(list::running(pool, &page).await?),
            (Some(State::Dead), Some(_), _) => Some(list::dead_of_group(pool, &page).await?),
            (Some(State::Dead), None, _) => Some(list::dead(pool, &page).await?),
            (Some(State::Cancelled), ..) => Some(list::cancelled(pool, &page).await?),
            (Some(State::Waiting), _, Some(_)) => {
                let mut rows = list::live_with_key(pool, &page).await?;
                rows.retain(|row| State::of(&row.status) == State::Waiting);
                Some(rows)
            }
            _ => None,
        };
        if let Some(rows) = exact {
            return Ok(job_page(rows, limit, None));
        }
        let mut rows = list::newest(pool, &page).await?;
        let is_full = rows.len() > limit as usize;
        let end = if is_full { None } else { list::window_end(pool, &page).await? };
        if let Some(end) = &end {
            page.before = &end.id;
            page.limit -= i64::try_from(rows.len()).unwrap_or(i64::MAX);
            rows.extend(older(pool, filter, &page).await?);
            rows.sort_by(|one, other| other.id.cmp(&one.id));
        }
        Ok(job_page(rows, limit, end))
    }

    /// Lists the dead letters of a queue whose last error contains this text. A bulk replay replays exactly these.
    /// Cancelled jobs are not among them.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn dead(&self, queue: &str, error: Option<&str>) -> Result<Vec<JobStatus>, Error> {
        let mut filter = Filter {
            queue: Some(queue.to_owned()),
            state: Some(State::Dead),
            error: error.map(str::to_owned),
            ..Filter::default()
        };
        let mut dead = Vec::new();
        loop {
            let page = self.list(&filter, PAGE).await?;
            dead.extend(page.jobs);
            match page.next {
                Some(next) => filter.before = Some(next),
                None => return Ok(dead),
            }
        }
    }

    /// Selects the waiting jobs of a queue that a filter means, or with [`State::Running`] the running ones, in two
    /// statements. With `shown` it selects only those of these ids, which a selection with the same filter has shown before:
    /// a job that was committed since, and now has an older id than some of them, is not among them.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn select_live(&self, filter: &Filter, shown: Option<&[String]>) -> Result<LiveJobs, Error> {
        let before = filter.before(OffsetDateTime::now_utc());
        let page = filter.page(&before, MAX_CANCELLED + 1);
        let mut ids = match (shown, filter.state) {
            (Some(shown), Some(State::Running)) => selection::shown_running(&self.pool, &page, shown).await?,
            (Some(shown), _) => selection::shown_waiting(&self.pool, &page, shown).await?,
            (None, Some(State::Running)) => selection::running(&self.pool, &page).await?,
            (None, _) => selection::waiting(&self.pool, &page).await?,
        };
        let max = usize::try_from(MAX_CANCELLED).unwrap_or(usize::MAX);
        let is_capped = ids.len() > max;
        ids.sort_unstable();
        ids.truncate(max);
        let samples = list::by_ids(&self.pool, ids.get(..SAMPLES).unwrap_or(&ids)).await?;
        let samples = samples.into_iter().map(JobStatus::from).collect();
        // No id is between the last one and this text.
        let before = ids.last().map_or(before, |last| format!("{last}!"));
        Ok(LiveJobs { count: ids.len(), is_capped, samples, before, ids })
    }

    /// Cancels the jobs with these ids, which [`Operator::select_live`] has selected with this filter. Returns the number of
    /// those that are cancelled or will be; the others had ended. Each is recorded in its own transaction.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable. Jobs before the error are cancelled and recorded.
    pub async fn cancel_selected(&self, filter: &Filter, ids: &[String], order: &Order) -> Result<u64, Error> {
        let mut cancelled = 0;
        for id in ids {
            cancelled += u64::from(matches!(self.cancel(id, order).await?, Cancelled::AtOnce | Cancelled::Requested));
        }
        self.record_cancellation(filter, cancelled, order).await?;
        Ok(cancelled)
    }

    /// Records that a filter was used to cancel so many jobs.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn record_cancellation(&self, filter: &Filter, count: u64, order: &Order) -> Result<(), Error> {
        let conditions: Map<String, Value> =
            filter.parameters().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        let queue = filter.queue.as_deref().unwrap_or_default();
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let mut tx = self.queue.begin().await?;
        audit::record(&mut *tx, order, "cancel", queue, Some(conditions.into()), count).await?;
        tx.commit().await
    }
}

/// Lists the jobs of a page from the indexes of their states: those that are older than all that were searched.
async fn older(pool: &Pool, filter: &Filter, page: &list::Page<'_>) -> Result<Vec<list::JobRow>, Error> {
    let is_any = filter.state.is_none();
    let live = async {
        if filter.key.is_some() && is_any {
            list::live_with_key(pool, page).await
        } else if is_any || filter.state == Some(State::Waiting) {
            list::waiting(pool, page, is_any).await
        } else {
            Ok(Vec::new())
        }
    };
    let ended = async {
        if !is_any {
            return Ok::<_, sqlx::Error>(Vec::new());
        }
        let mut ended = match filter.group {
            Some(_) => list::dead_of_group(pool, page).await?,
            None => list::dead(pool, page).await?,
        };
        ended.extend(list::cancelled(pool, page).await?);
        Ok(ended)
    };
    // Views have two sessions. Both parts run to their end, because a statement that is given up costs its session.
    let (live, ended) = join(live, ended).await;
    let mut older = live?;
    older.extend(ended?);
    Ok(older)
}

/// A page of at most `limit` of these rows. `end` is the end of the search for what no index finds.
fn job_page(mut rows: Vec<list::JobRow>, limit: u32, end: Option<list::WindowEnd>) -> JobPage {
    let searched = end.as_ref().map_or(0, |end| end.searched);
    let searched_to = end.map(|end| end.id);
    let limit = limit as usize;
    let is_full = rows.len() > limit;
    rows.truncate(limit);
    let last = rows.last().map(|row| &row.id).filter(|_| is_full);
    // Rows below `searched_to` come from indexes of their states, so others between them were not searched.
    let next = last.max(searched_to.as_ref()).cloned();
    let time = |id: &String| Ulid::from_string(id).ok().map(|id| i128::from(id.timestamp_ms()) * 1_000_000);
    JobPage {
        searched_back_to: searched_to
            .as_ref()
            .and_then(time)
            .and_then(|nanoseconds| OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok()),
        jobs: rows.into_iter().map(JobStatus::from).collect(),
        searched_to,
        searched,
        next,
    }
}
