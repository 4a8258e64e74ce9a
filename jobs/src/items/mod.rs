//! Items: written by their owners, read by everybody, each write with its indexing in one commit.
//!
//! | file | what |
//! |---|---|
//! | [`item`] | an item, and what may be asked to be done with one |
//! | `store` | all SQL |
//! | `aside` | look-ups by id: the cache, and one load for all who wait |
//! | [`cache`] | in this process, or shared through Redis |
//! | [`index`] | the job that follows each write |
//! | [`search`] | items by their words |

mod aside;
pub mod cache;
pub mod index;
pub mod item;
pub mod search;
mod store;

use std::sync::Arc;

pub use item::{Change, Changed, Contents, Expected, Item, ItemId, Owner, Page};
use sqlx::PgPool;
use tracing::Instrument;

use self::{
    aside::{Aside, GONE},
    cache::{Cache, memory::Memory, redis::Redis},
    index::{Index, IndexItem},
};
use crate::{
    boot::db::answered,
    error::Error,
    queue::{self, Job, NewJob, Origin, Queue, Tx, enqueue},
    remote,
    users::UserId,
};

/// The feature. Clones share everything.
#[derive(Clone)]
pub struct Items {
    pool: PgPool,
    queue: Queue,
    aside: Arc<Aside>,
    index: Arc<dyn Index>,
}

impl Items {
    /// Starts the feature; its cache is shared through `redis`, if there is one, and `index` finds items by their texts.
    pub fn start(pool: &PgPool, queue: &Queue, redis: Option<remote::redis::Redis>, index: Arc<dyn Index>) -> Self {
        queue::metrics::zero(IndexItem::NAME);
        let cache: Arc<dyn Cache> = match redis {
            Some(redis) => Arc::new(Redis { redis }),
            None => Arc::new(Memory::default()),
        };
        Self { pool: pool.clone(), queue: queue.clone(), aside: Arc::new(Aside::new(pool, cache)), index }
    }

    /// Records an item of this owner; `None` when there is no such user.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database cannot take it now, as for every change here.
    pub async fn create(&self, owner: UserId, contents: &Contents, origin: Origin) -> Result<Option<Item>, Error> {
        let mut tx = self.queue.begin().await?;
        let Some(item) = answered(store::insert(&mut tx, owner, contents)).await? else { return Ok(None) };
        self.commit(tx, item.id, item.version, Some(index::job(item.id, item.version)?), origin).await?;
        Ok(Some(item))
    }

    /// Replaces what an item says.
    ///
    /// # Errors
    /// As [`Items::create`].
    pub async fn update(&self, change: &Change, contents: &Contents, origin: Origin) -> Result<Changed<Item>, Error> {
        let mut tx = self.queue.begin().await?;
        if let Err(refused) = allowed(&mut tx, change).await? {
            return Ok(refused);
        }
        let item = answered(store::update(&mut tx, change.id, contents)).await?;
        let job = match answered(index::is_awaited(&mut tx, item.id)).await? {
            true => None,
            false => Some(index::job(item.id, item.version)?),
        };
        self.commit(tx, item.id, item.version, job, origin).await?;
        Ok(Changed::Done(item))
    }

    /// Deletes an item. That is its last version, so that no earlier indexing can bring it back.
    ///
    /// # Errors
    /// As [`Items::create`].
    pub async fn delete(&self, change: &Change, origin: Origin) -> Result<Changed<()>, Error> {
        let mut tx = self.queue.begin().await?;
        let version = match allowed(&mut tx, change).await? {
            Ok(version) => version,
            Err(refused) => return Ok(refused),
        };
        answered(store::delete(&mut tx, change.id)).await?;
        self.commit(tx, change.id, GONE, Some(index::job(change.id, version + 1)?), origin).await?;
        Ok(Changed::Done(()))
    }

    /// The item with this id: at most 3 s old where processes do not share a cache, and never older than a write of
    /// this process.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is needed and cannot be asked now.
    pub async fn find(&self, id: ItemId) -> Result<Option<Arc<Item>>, Error> {
        // Ids are counted from 1.
        if id.0 < 1 { Ok(None) } else { self.aside.find(id).await }
    }

    /// One page, newest first.
    ///
    /// # Errors
    /// As [`Items::find`].
    pub async fn list(&self, skip: i64, limit: i64) -> Result<Page, Error> {
        answered(store::page(&self.pool, skip, limit)).await
    }

    /// Commits a write together with its indexing, and lets nobody be shown what was before it; `told` is the version
    /// that the item has then. In a task of its own: a caller that leaves must not come between the two.
    async fn commit(
        &self,
        mut tx: Tx,
        id: ItemId,
        told: i64,
        job: Option<NewJob>,
        origin: Origin,
    ) -> Result<(), Error> {
        let (job, aside) = (job.map(|job| job.origin(origin)), self.aside.clone());
        let work = async move {
            let committed = answered(async {
                enqueue(&mut tx, job.as_slice()).await?;
                tx.commit().await
            })
            .await;
            // A commit without an answer may have happened all the same.
            let told = if committed.is_ok() { told } else { 0 };
            if let Err(error) = aside.wrote(id, told).await {
                tracing::debug!(%error, item = id.0, "the job will drop it from the cache");
            }
            committed
        };
        tokio::spawn(work.in_current_span()).await.unwrap_or_else(|error| Err(Error::Internal(error.to_string())))
    }
}

/// The version that an item has now, when this change may be made to it; it stays so until the transaction ends.
async fn allowed<T>(tx: &mut Tx, change: &Change) -> Result<Result<i64, Changed<T>>, Error> {
    Ok(match answered(store::lock(tx, change.id)).await? {
        None => Err(Changed::Unknown),
        Some((owner, _)) if owner != change.by => Err(Changed::NotYours),
        Some((_, version)) if !change.suits(version) => Err(Changed::Stale(version)),
        Some((_, version)) => Ok(version),
    })
}
