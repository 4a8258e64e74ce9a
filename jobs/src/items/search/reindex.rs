//! Rebuilds the search index without downtime: writes every item, then removes the documents that have no item.
//!
//! Indexing jobs run at the same time. Versions order the writes, so the newer document stays in any order. An item
//! may be deleted after its page was read; its document is then written again, and removed at the end.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{
    Searcher,
    elasticsearch::{Elasticsearch, Write},
    model::Document,
    store::{self, SameVersion},
};
use queue::{Failure, Job, NewJob, Outcome, Policy, Queue, Run, enqueue};
use runtime::{error::Error, time_limit::with_time_limit};

/// The number of items in a page.
const PAGE_SIZE: i64 = 200;
/// The text that one request writes, unless a single item has more. It is far below the limits of a statement and of
/// Elasticsearch.
const BATCH_BYTES: usize = 4 << 20;

/// How long one run of the job lasts before it gives its slot to other jobs.
const RUN_LIMIT: Duration = Duration::from_secs(20);
/// The pause before a retry when the database or Elasticsearch is not available.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// Reindexes the documents that an earlier release wrote by its own rules. There are some after an update, and while
/// processes of that release still run.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReindexItems {}

impl Job for ReindexItems {
    const NAME: &'static str = "reindex_items";
    type Context = Searcher;

    fn policy(_: &Searcher) -> Policy {
        Policy { deadline: RUN_LIMIT * 3, concurrency: 1, ..Policy::default() }
    }

    async fn run(self, search: Searcher, _: Run) -> Result<Outcome, Failure> {
        match search.reindex_stale(Instant::now() + RUN_LIMIT).await {
            Ok(true) => Ok(Outcome::Done),
            Ok(false) => Ok(Outcome::Snooze(Duration::ZERO)),
            Err(error @ (Error::Unavailable(_) | Error::Overloaded(_))) => {
                tracing::warn!(%error, "could not reindex items");
                Ok(Outcome::Snooze(RETRY_DELAY))
            }
            Err(error) => Err(Failure::new(error)),
        }
    }
}

/// The progress of a rebuild.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Items written.
    pub written: u64,
    /// The approximate number of all items.
    pub of: u64,
    /// Documents removed because they had no item.
    pub removed: u64,
}

impl Searcher {
    /// The health of Elasticsearch, or `None` if it is not configured.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when Elasticsearch is not available.
    pub async fn health(&self) -> Result<Option<String>, Error> {
        match &self.elasticsearch {
            Some(elasticsearch) => elasticsearch.health().await.map(Some),
            None => Ok(None),
        }
    }

    /// Writes every item, and removes every document without an item, in PostgreSQL and Elasticsearch. Calls `progress`
    /// after each page. It is safe to run again, or twice at the same time.
    ///
    /// # Errors
    /// When the database or Elasticsearch fails. The pages written so far stay.
    pub async fn reindex(&self, mut progress: impl FnMut(Progress)) -> Result<Progress, Error> {
        let pool = &self.postgres.pool;
        let estimate = store::items_estimate(pool).await?;
        let mut so_far = Progress { of: u64::try_from(estimate).unwrap_or_default(), ..Progress::default() };
        let mut after = i64::MIN;
        loop {
            let page = store::items_after(pool, after, PAGE_SIZE).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            for batch in split_by_size(page) {
                store::upsert(pool, &batch, SameVersion::Overwrite).await?;
                so_far.written += batch.len() as u64;
                if let Some(elasticsearch) = &self.elasticsearch {
                    elasticsearch.write(batch.into_iter().map(Write::Upsert).collect()).await?;
                }
            }
            so_far.of = so_far.of.max(so_far.written);
            progress(so_far);
        }
        so_far.removed += self.remove_orphans().await?;
        if let Some(elasticsearch) = &self.elasticsearch {
            so_far.removed += self.remove_orphans_from(elasticsearch).await?;
        }
        store::delete_old_tombstones(pool).await?;
        so_far.of = so_far.written;
        progress(so_far);
        Ok(so_far)
    }

    /// Enqueues the job if there are stale documents. Its unique key allows one waiting job for all processes.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is not available.
    pub async fn enqueue_reindex(&self, queue: &Queue) -> Result<(), Error> {
        if !store::has_stale_documents(&self.postgres.pool).await? {
            return Ok(());
        }
        let mut tx = queue.begin().await?;
        with_time_limit(async {
            enqueue(&mut tx, &[NewJob::of(&ReindexItems {})?.unique("stale".to_owned())]).await?;
            tx.commit().await
        })
        .await
    }

    /// Reindexes stale documents until `until`. Returns whether all are done.
    async fn reindex_stale(&self, until: Instant) -> Result<bool, Error> {
        let pool = &self.postgres.pool;
        let (mut after, mut written) = (i64::MIN, 0);
        loop {
            let page = store::stale_after(pool, after, PAGE_SIZE).await?;
            let Some(last) = page.last() else {
                tracing::info!(items = written, "all items are reindexed");
                return Ok(true);
            };
            after = last.id;
            written += page.len();
            for batch in split_by_size(page) {
                // Elasticsearch first: a document counts as reindexed once it is in PostgreSQL.
                if let Some(elasticsearch) = &self.elasticsearch {
                    elasticsearch.write(batch.iter().cloned().map(Write::Upsert).collect()).await?;
                }
                store::upsert(pool, &batch, SameVersion::Overwrite).await?;
            }
            if Instant::now() > until {
                tracing::info!(items = written, "items reindexed; more remain");
                return Ok(false);
            }
        }
    }

    /// Removes the documents in PostgreSQL that have no item.
    ///
    /// The documents are read before their items. An item is committed before its first document, and ids are never
    /// reused: so a missing item has been deleted.
    async fn remove_orphans(&self) -> Result<u64, Error> {
        let pool = &self.postgres.pool;
        let (mut after, mut removed) = (i64::MIN, 0);
        loop {
            let page = store::documents_after(pool, after, PAGE_SIZE).await?;
            let Some((last, _)) = page.last() else { return Ok(removed) };
            after = *last;
            for (id, version) in self.orphans(page).await? {
                store::remove(pool, id, version).await?;
                removed += 1;
            }
        }
    }

    async fn remove_orphans_from(&self, elasticsearch: &Elasticsearch) -> Result<u64, Error> {
        elasticsearch.prepare().await?;
        elasticsearch.refresh().await?;
        let (mut after, mut removed) = (i64::MIN, 0);
        loop {
            let page = elasticsearch.documents_after(after, PAGE_SIZE).await?;
            let Some((last, _)) = page.last() else { return Ok(removed) };
            after = *last;
            let orphans = self.orphans(page).await?;
            removed += orphans.len() as u64;
            elasticsearch
                .write(orphans.into_iter().map(|(id, version)| Write::Remove { id, version }).collect())
                .await?;
        }
    }

    /// Those of these documents, by id and version, that have no item.
    async fn orphans(&self, documents: Vec<(i64, i64)>) -> Result<Vec<(i64, i64)>, Error> {
        let ids: Vec<i64> = documents.iter().map(|(id, _)| *id).collect();
        let missing = store::find_missing_items(&self.postgres.pool, &ids).await?;
        Ok(documents.into_iter().filter(|(id, _)| missing.contains(id)).collect())
    }
}

/// Splits a page into batches of at most [`BATCH_BYTES`], or of one larger document.
fn split_by_size(page: Vec<Document>) -> Vec<Vec<Document>> {
    let (mut batches, mut bytes) = (vec![Vec::new()], 0);
    for document in page {
        let size = document.text_bytes();
        bytes += size;
        if bytes > BATCH_BYTES {
            batches.push(Vec::new());
            bytes = size;
        }
        if let Some(batch) = batches.last_mut() {
            batch.push(document);
        }
    }
    batches.retain(|batch| !batch.is_empty());
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_long_texts_is_written_in_batches() {
        let document = |id: i64, size: usize| Document { id, ..Document::example(&"x".repeat(size), None) };
        let sizes = [BATCH_BYTES + 1, 1, BATCH_BYTES / 2, BATCH_BYTES / 2, 5, BATCH_BYTES];
        let page = (0..).zip(sizes).map(|(id, size)| document(id, size)).collect();
        let batches = split_by_size(page).into_iter();
        let ids: Vec<Vec<i64>> = batches.map(|batch| batch.iter().map(|document| document.id).collect()).collect();
        assert_eq!(ids, [vec![0], vec![1, 2], vec![3, 4], vec![5]]);
        assert!(split_by_size(Vec::new()).is_empty());
    }
}
