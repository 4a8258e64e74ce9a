//! Pages of transactions, newest first: chooses a query for each status, since no index contains `status`.
//!
//! With `status` in an index, no settlement would be a HOT update: each would write to every index of the table. That
//! is 3,110 bytes of WAL over the life of a transaction, against about 2,000, for lists that are rarely read.

use uuid::Uuid;

use super::{
    model::{Cursor, Status, Transaction},
    process::ProcessTransaction,
    store,
};
use queue::Job;
use runtime::{db::Pool, error::Error};

/// Unsettled transactions are found through their jobs, up to this number of jobs.
const MAX_JOBS: usize = 10_000;
/// The number of rows in each read after the first. More reads are only needed if workers settle rows at the same time.
const CHUNK: usize = 1_000;

/// At most `limit` transactions with `status` (all if `None`) after `cursor`.
///
/// Every query orders by id. So each page begins where the previous one ended, even if rows are added or settled.
pub(super) async fn page(
    pool: &Pool,
    status: Option<Status>,
    limit: u32,
    cursor: Option<Cursor>,
) -> Result<Vec<Transaction>, Error> {
    let before = cursor.map_or(Uuid::max(), |Cursor(id)| id);
    match status {
        Some(Status::Processing) => find_processing(pool, limit, before).await,
        // Nearly all are processed, so a scan of all finds a page quickly. Failed ones have a partial index.
        None | Some(Status::Processed | Status::Failed) => store::find_newest(pool, status, before, limit).await,
    }
}

/// A page of the transactions that are still processing. Their jobs wait or run: a job has the id of its transaction,
/// and ends after the settlement.
///
/// - Up to [`MAX_JOBS`] jobs: reads and sorts the ids of all these jobs, then reads a page of rows by primary key. The
///   ids take 1 to 2 ms for 1,000 jobs and 6 to 25 ms for 10,000. Settled rows between them cost nothing.
/// - More jobs: scans from the newest id and skips settled rows. Unsettled rows are dense then, and a page takes
///   milliseconds. The exception: all of them are older than millions of settled rows, such as after a partial outage
///   of the processor. Each page that begins above them reads those rows first: 110 ms for each 500,000.
///
/// A transaction has no live job if the tables were edited by hand, or if the job's payload could not be parsed. Only
/// the second way and the list of all transactions find it.
async fn find_processing(pool: &Pool, limit: u32, before: Uuid) -> Result<Vec<Transaction>, Error> {
    let live = queue::unfinished_jobs(pool, ProcessTransaction::NAME, MAX_JOBS + 1).await?;
    if live.len() > MAX_JOBS {
        return store::find_newest(pool, Some(Status::Processing), before, limit).await;
    }
    let mut ids: Vec<Uuid> = live.into_iter().map(Uuid::from).filter(|id| *id < before).collect();
    ids.sort_unstable_by(|a, b| b.cmp(a));
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (mut page, mut rest, mut size) = (Vec::new(), &*ids, limit);
    while page.len() < limit && !rest.is_empty() {
        let (chunk, later) = rest.split_at(size.min(rest.len()));
        page.extend(store::find_processing(pool, chunk).await?);
        (rest, size) = (later, CHUNK);
    }
    page.truncate(limit);
    Ok(page)
}
