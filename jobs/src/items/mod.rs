//! Items: each write by an owner and its indexing job are one commit; reads are public.

pub mod cache;
mod cached_items;
pub mod index;
pub mod item;
pub mod search;
mod store;

use std::sync::Arc;

pub use item::{Change, ChangeOutcome, Contents, Expected, Item, ItemId, Owner, Page};

use self::{
    cache::{Cache, memory::Memory, redis::Redis},
    cached_items::{CachedItems, DELETED_VERSION},
    index::{Index, IndexItem},
};
use crate::users::UserId;
use queue::{Job, NewJob, Origin, Queue, Tx, enqueue};
use runtime::{clients, db::Pool, error::Error, task::run_to_completion, time_limit::with_time_limit};

/// The feature. Clones share everything.
#[derive(Clone)]
pub struct Items {
    pool: Pool,
    queue: Queue,
    cached: Arc<CachedItems>,
    index: Arc<dyn Index>,
}

impl Items {
    /// Starts the feature. The cache is in Redis if `redis` is given, otherwise in this process. The indexing job
    /// writes to `index`.
    pub fn start(pool: &Pool, queue: &Queue, redis: Option<clients::redis::Redis>, index: Arc<dyn Index>) -> Self {
        queue::metrics::zero(IndexItem::NAME);
        let cache = match redis {
            Some(redis) => Cache::Redis(Redis::new(redis)),
            None => Cache::Memory(Memory::default()),
        };
        Self { pool: pool.clone(), queue: queue.clone(), cached: Arc::new(CachedItems::new(pool, cache)), index }
    }

    /// Creates an item of this owner. Returns `None` if there is no such user.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is not available.
    pub async fn create(&self, owner: UserId, contents: &Contents, origin: Origin) -> Result<Option<Item>, Error> {
        let mut tx = self.queue.begin().await?;
        let Some(item) = store::insert(&mut tx, owner, contents).await? else { return Ok(None) };
        self.commit(tx, item.id, item.version, Some(index::job(item.id, item.version)?), origin).await?;
        Ok(Some(item))
    }

    /// Replaces the contents of an item.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is not available.
    pub async fn update(
        &self,
        change: &Change,
        contents: &Contents,
        origin: Origin,
    ) -> Result<ChangeOutcome<Item>, Error> {
        let mut tx = self.queue.begin().await?;
        if let Err(refused) = lock_for_change(&mut tx, change).await? {
            return Ok(refused);
        }
        let item = store::update(&mut tx, change.id, contents).await?;
        let job = match index::has_waiting_job(&mut tx, item.id).await? {
            true => None,
            false => Some(index::job(item.id, item.version)?),
        };
        self.commit(tx, item.id, item.version, job, origin).await?;
        Ok(ChangeOutcome::Done(item))
    }

    /// Deletes an item. The deletion counts as its last version, so that no earlier indexing job can restore it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is not available.
    pub async fn delete(&self, change: &Change, origin: Origin) -> Result<ChangeOutcome<()>, Error> {
        let mut tx = self.queue.begin().await?;
        let version = match lock_for_change(&mut tx, change).await? {
            Ok(version) => version,
            Err(refused) => return Ok(refused),
        };
        store::delete(&mut tx, change.id).await?;
        self.commit(tx, change.id, DELETED_VERSION, Some(index::job(change.id, version + 1)?), origin).await?;
        Ok(ChangeOutcome::Done(()))
    }

    /// The item with this id. It is never older than a write of this process. Without a shared cache, it may lack
    /// writes of other processes for at most 3 s.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the item is not cached and the database is not available.
    pub async fn find(&self, id: ItemId) -> Result<Option<Arc<Item>>, Error> {
        // Ids start at 1.
        if id.0 < 1 { Ok(None) } else { self.cached.find(id).await }
    }

    /// One page, newest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is not available.
    pub async fn list(&self, skip: i64, limit: i64) -> Result<Page, Error> {
        store::page(&self.pool, skip, limit).await
    }

    /// Commits the write and its indexing job, then invalidates the cache. Spawned, so that a client that disconnects
    /// cannot cancel it in between. `version` is the item's new version.
    async fn commit(
        &self,
        mut tx: Tx,
        id: ItemId,
        version: i64,
        job: Option<NewJob>,
        origin: Origin,
    ) -> Result<(), Error> {
        let (job, cached) = (job.map(|job| job.origin(origin)), self.cached.clone());
        let work = async move {
            let committed = with_time_limit(async {
                enqueue(&mut tx, job.as_slice()).await?;
                tx.commit().await
            })
            .await;
            // A commit whose response was lost may have happened. So invalidate in any case, but record no version.
            let version = if committed.is_ok() { version } else { 0 };
            if let Err(error) = cached.invalidate(id, version).await {
                tracing::debug!(%error, item = id.0, "could not remove an item from the cache; its job will");
            }
            committed
        };
        run_to_completion(work).await
    }
}

/// Locks the item until the transaction ends. Returns its version, or why the change is refused.
async fn lock_for_change<T>(tx: &mut Tx, change: &Change) -> Result<Result<i64, ChangeOutcome<T>>, Error> {
    Ok(match store::lock(tx, change.id).await? {
        None => Err(ChangeOutcome::Unknown),
        Some((owner, _)) if owner != change.by => Err(ChangeOutcome::NotYours),
        Some((_, version)) if !change.allows(version) => Err(ChangeOutcome::Stale(version)),
        Some((_, version)) => Ok(version),
    })
}
