//! Pages of transactions, newest first: which way leads to those with one status, as no index names it.
//!
//! An index with `status` in it would make every settlement write to every index of the table (not a HOT update: 3,110
//! bytes of WAL for a transaction in its whole life instead of about 2,000), for lists that are read now and then.

use sqlx::PgPool;
use uuid::Uuid;

use super::{
    model::{Cursor, Status, Transaction},
    process::ProcessTransaction,
    store,
};
use crate::{
    error::Error,
    queue::{self, Job},
};

/// Up to here the unsettled transactions are listed from their jobs.
const FEW: usize = 10_000;
/// Those that are read at once after the first were not enough: few, unless a worker settles them at this moment.
const CHUNK: usize = 1_000;

/// At most `limit` transactions with `status` (all when `None`) after `cursor`.
///
/// Each way is in the order of the id, so a page begins where the one before ended, whatever is added or settled.
pub async fn page(
    pool: &PgPool,
    status: Option<Status>,
    limit: u32,
    cursor: Option<Cursor>,
) -> Result<Vec<Transaction>, Error> {
    let before = cursor.map_or(Uuid::max(), |Cursor(id)| id);
    match status {
        Some(Status::Processing) => processing(pool, limit, before).await,
        // Processed are nearly all, so that a walk over all ends with the page, too. Failed ones have an index.
        None | Some(Status::Processed | Status::Failed) => store::newest(pool, status, before, limit).await,
    }
}

/// Those that are still processing are those whose job waits or runs: it has the same id, and ends after they do.
///
/// - Up to [`FEW`] jobs: their ids, sorted here, and a page of rows by primary key. It costs the reading of all these ids,
///   1 or 2 ms for 1,000 and 6 to 25 for 10,000, however many settled ones lie between them.
/// - More: a walk from the newest that leaves out the settled ones. They are dense then, and a page is found within
///   milliseconds; unless all of them are older than millions of settled ones, as after a stop of the processor that
///   spared the newer ones. Then each page that begins above them reads all those first, 110 ms for each 500,000.
///
/// One whose job is gone or dead without it, because somebody changed the tables by hand or the payload of its job cannot
/// be read, is found by the second way only, and by the list of all.
async fn processing(pool: &PgPool, limit: u32, before: Uuid) -> Result<Vec<Transaction>, Error> {
    let live = queue::live(pool, ProcessTransaction::NAME, FEW + 1).await?;
    if live.len() > FEW {
        return store::newest(pool, Some(Status::Processing), before, limit).await;
    }
    let mut ids: Vec<Uuid> = live.into_iter().map(Uuid::from).filter(|id| *id < before).collect();
    ids.sort_unstable_by(|a, b| b.cmp(a));
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (mut page, mut rest, mut size) = (Vec::new(), &*ids, limit);
    while page.len() < limit && !rest.is_empty() {
        let (chunk, later) = rest.split_at(size.min(rest.len()));
        page.extend(store::processing(pool, chunk).await?);
        (rest, size) = (later, CHUNK);
    }
    page.truncate(limit);
    Ok(page)
}
