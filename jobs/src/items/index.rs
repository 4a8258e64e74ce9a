//! The indexing job: updates the search index to the current version of an item, and removes it from a shared cache.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Item, ItemId, Items,
    cache::redis,
    search::{Document, Searcher},
    store,
};
use queue::{Failure, Job, JobId, NewJob, Outcome, Policy, Run, Tx, lock_waiting_job, retry::Backoff};
use runtime::error::{Error, causes};

/// The pause before a retry when the database or the search is not available.
const RETRY_DELAY: Duration = Duration::from_secs(2);
/// The pause before a retry when the shared cache is not available.
const CACHE_RETRY_DELAY: Duration = Duration::from_secs(1);
/// After this time every entry from before the write has expired, even if its removal failed. It is twice the TTL, to
/// allow for clocks that differ.
const CACHE_EXPIRED_AFTER: Duration = Duration::from_secs(2 * redis::TTL.as_secs());

/// A run that takes longer checks that its item was not deleted meanwhile. In this time no search engine restarts.
const LATE: Duration = Duration::from_secs(1);

/// A search index of items. An older version never replaces a newer one, however late it arrives.
#[async_trait]
pub trait Index: Send + Sync {
    /// Indexes an item at its current version.
    async fn upsert(&self, item: Item) -> Result<(), Error>;
    /// Removes an item; `version` is its last one.
    async fn remove(&self, id: ItemId, version: i64) -> Result<(), Error>;
}

#[async_trait]
impl Index for Searcher {
    async fn upsert(&self, item: Item) -> Result<(), Error> {
        self.index(Document {
            id: item.id.0,
            version: item.version,
            title: item.title,
            description: item.description,
            price_cents: item.price_cents,
            owner_id: item.owner.id,
            created_at: item.created_at,
            updated_at: item.updated_at,
        })
        .await
    }

    async fn remove(&self, id: ItemId, version: i64) -> Result<(), Error> {
        Searcher::remove(self, id.0, version).await
    }
}

/// Indexes the item with this id at the version that it has when the job runs.
#[derive(Debug, Serialize, Deserialize)]
pub struct IndexItem {
    pub id: i64,
    /// The version of the write that enqueued the job; of a deletion, the last version.
    pub version: i64,
}

/// The indexing job of a write.
///
/// The unique key contains the version as well as the id. A running job of an earlier version may have read its row
/// before this write. If that job held the key, this write would never be indexed. So each write has its own job. A
/// run that finds a newer row indexes that row, and the newer job then has nothing to change. A job that still waits
/// will read its row after this write, so the write needs no other job: see [`has_waiting_job`].
pub(super) fn job(id: ItemId, version: i64) -> Result<NewJob, Error> {
    Ok(NewJob::of(&IndexItem { id: id.0, version })?.unique(format!("{id}@{version}")))
}

/// Whether a waiting job of this item will read what this transaction writes. A deletion needs its own job, because
/// only that job carries the version of the deletion.
pub(super) async fn has_waiting_job(tx: &mut Tx, id: ItemId) -> Result<bool, Error> {
    // A key is the id, `@` and a version; `A` follows `@` in ASCII.
    lock_waiting_job(tx, IndexItem::NAME, &format!("{id}@"), &format!("{id}A")).await
}

impl Job for IndexItem {
    const NAME: &'static str = "index_item";
    type Context = Items;

    fn policy(_: &Items) -> Policy {
        let backoff = Backoff { base: Duration::from_secs(2), cap: Duration::from_secs(600) };
        Policy { backoff, deadline: Duration::from_secs(30), concurrency: 32, ..Policy::default() }
    }

    async fn run(self, items: Items, run: Run) -> Result<Outcome, Failure> {
        let id = ItemId(self.id);
        match self.index(&items).await {
            Ok(()) => {}
            // An outage of the database or the search uses up no attempt. Otherwise an item could stay unindexed.
            Err(error @ (Error::Unavailable(_) | Error::Overloaded(_))) => {
                let error = error.to_string();
                tracing::warn!(error, item = self.id, "could not index an item");
                return Ok(Outcome::SnoozeBecause(RETRY_DELAY, error));
            }
            Err(error) => return Err(error.into()),
        }
        // The writing process removes the entry too, but it may have died first or may not have reached Redis.
        match items.cached.invalidate_shared(id).await {
            Err(error) if job_age(run.id) < CACHE_EXPIRED_AFTER => {
                Ok(Outcome::SnoozeBecause(CACHE_RETRY_DELAY, causes(&error)))
            }
            _ => Ok(Outcome::Done),
        }
    }
}

impl IndexItem {
    async fn index(&self, items: &Items) -> Result<(), Error> {
        let (id, begun) = (ItemId(self.id), Instant::now());
        let Some(item) = store::find(&items.pool, id).await? else {
            return items.index.remove(id, self.version).await;
        };
        let version = item.version;
        items.index.upsert(item).await?;
        // A search engine forgets the versions of removed documents when it restarts. So a late run, such as one of a
        // worker that was frozen, could restore a deleted item.
        if begun.elapsed() > LATE && store::find(&items.pool, id).await?.is_none() {
            items.index.remove(id, version + 1).await?;
        }
        Ok(())
    }
}

/// The time since a job was created: its id begins with that time.
fn job_age(id: JobId) -> Duration {
    let millis = u64::try_from(Uuid::from(id).as_u128() >> 80).unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_millis(millis))
}
