//! The job: brings the search index, and a shared cache, to where an item stands.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Item, ItemId, Items,
    cache::redis,
    search::{Document, Searcher},
    store,
};
use crate::{
    boot::db::answered,
    error::{Error, causes},
    queue::{Failure, Job, JobId, NewJob, Outcome, Policy, Run, Tx, hold_waiting, retry::Backoff},
};

/// The pause after something could not be asked or written to.
const TROUBLE: Duration = Duration::from_secs(2);
/// The pause before a shared cache is told again.
const CACHE_TROUBLE: Duration = Duration::from_secs(1);
/// After this no entry is left that a cache was not told to drop; twice its life, for clocks that differ.
const CACHE_SETTLED: Duration = Duration::from_secs(2 * redis::LIFE.as_secs());

/// What finds items by their texts. An older version never wins over a newer one, however late it comes.
pub trait Index: Send + Sync {
    /// Records an item as it stands.
    fn put(&self, item: Item) -> BoxFuture<'_, Result<(), Error>>;
    /// Removes an item that ended with this version.
    fn remove(&self, id: ItemId, version: i64) -> BoxFuture<'_, Result<(), Error>>;
}

impl Index for Searcher {
    fn put(&self, item: Item) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.index(Document {
            id: item.id.0,
            version: item.version,
            title: item.title,
            description: item.description,
            price_cents: item.price_cents,
            owner_id: item.owner.id,
            created_at: item.created_at,
            updated_at: item.updated_at,
        }))
    }

    fn remove(&self, id: ItemId, version: i64) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(Searcher::remove(self, id.0, version))
    }
}

/// Indexes the item with this id as it stands when the job runs.
#[derive(Debug, Serialize, Deserialize)]
pub struct IndexItem {
    pub id: i64,
    /// The version of the write that asks for it; when the item is gone, its last one.
    pub version: i64,
}

/// The job of a write.
///
/// Its key names the version, not only the item: a run of an earlier version may have read its row before this write,
/// and a key that this run held would lose the write. So each write has its own job; a run that finds a newer row
/// indexes that, and the newer job finds its work done. A job that still waits reads its row after this write, and is all
/// that the write needs: see [`is_awaited`].
pub(super) fn job(id: ItemId, version: i64) -> Result<NewJob, Error> {
    Ok(NewJob::of(&IndexItem { id: id.0, version })?.unique(format!("{id}@{version}")))
}

/// Whether a job of this item waits, which will then read what this transaction writes. A removal needs its own job: it
/// is the version of the job that tells of it.
pub(super) async fn is_awaited(tx: &mut Tx, id: ItemId) -> Result<bool, Error> {
    // Keys are the id, `@` and a version; `A` comes after `@`.
    hold_waiting(tx, IndexItem::NAME, &format!("{id}@"), &format!("{id}A")).await
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
            // An outage of the database or of the search is nobody's fault, and no item may stay out for it.
            Err(Error::Unavailable(error)) => {
                tracing::warn!(error, item = self.id, "could not index an item");
                return Ok(Outcome::SnoozeBecause(TROUBLE, error));
            }
            Err(error) => return Err(error.into()),
        }
        // Once more, in case the process of the write died before, or could not reach it.
        match items.aside.drop_shared(id).await {
            Err(error) if age(run.id) < CACHE_SETTLED => Ok(Outcome::SnoozeBecause(CACHE_TROUBLE, causes(&error))),
            _ => Ok(Outcome::Done),
        }
    }
}

impl IndexItem {
    async fn index(&self, items: &Items) -> Result<(), Error> {
        match answered(store::find(&items.pool, ItemId(self.id))).await? {
            Some(item) => items.index.put(item).await,
            None => items.index.remove(ItemId(self.id), self.version).await,
        }
    }
}

/// How long ago a job was made: ids begin with their time.
fn age(id: JobId) -> Duration {
    let millis = u64::try_from(Uuid::from(id).as_u128() >> 80).unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_millis(millis))
}
