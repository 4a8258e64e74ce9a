//! Everything anew, while serving: each item as it is now, and nothing whose item is gone.
//!
//! Beside it jobs go on indexing: versions decide, so whichever of both comes last, the newer document stays. What was
//! removed meanwhile and written again from a page that was read before is found gone in the end.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{
    Searcher,
    elasticsearch::{Elasticsearch, Write},
    model::Document,
    store::{self, Equal},
};
use crate::{
    boot::db::answered,
    error::Error,
    queue::{Failure, Job, NewJob, Outcome, Policy, Queue, Run, enqueue},
};

/// Items of one page.
const PAGE: i64 = 200;
/// Text that is written at once, unless a single item has more: far from what a statement may take and a server accepts.
const BYTES: usize = 4 << 20;

/// How long a run of the job goes on before it lets others have its place.
const SLICE: Duration = Duration::from_secs(20);
/// The pause after something could not be asked or written to.
const TROUBLE: Duration = Duration::from_secs(5);

/// Indexes anew what an earlier release has indexed, by its rules: after an update, and while processes of that release run.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReindexItems {}

impl Job for ReindexItems {
    const NAME: &'static str = "reindex_items";
    type Context = Searcher;

    fn policy(_: &Searcher) -> Policy {
        Policy { deadline: SLICE * 3, concurrency: 1, ..Policy::default() }
    }

    async fn run(self, search: Searcher, _: Run) -> Result<Outcome, Failure> {
        match search.reindex_stale(Instant::now() + SLICE).await {
            Ok(true) => Ok(Outcome::Done),
            Ok(false) => Ok(Outcome::Snooze(Duration::ZERO)),
            Err(Error::Unavailable(error)) => {
                tracing::warn!(error, "items cannot be indexed anew now");
                Ok(Outcome::Snooze(TROUBLE))
            }
            Err(error) => Err(Failure::new(error)),
        }
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Items written.
    pub written: u64,
    /// About how many there are.
    pub of: u64,
    /// Documents removed because their item was gone.
    pub removed: u64,
}

impl Searcher {
    /// The health of Elasticsearch, when there is one.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it does not answer.
    pub async fn health(&self) -> Result<Option<String>, Error> {
        match &self.elasticsearch {
            Some(elasticsearch) => elasticsearch.health().await.map(Some),
            None => Ok(None),
        }
    }

    /// Writes every item and removes every document without one, here and in Elasticsearch; tells `progress` after
    /// each page. Running it again, or twice at once, is harmless.
    ///
    /// # Errors
    /// When something cannot be read or written; what was done until then stays.
    pub async fn reindex(&self, mut progress: impl FnMut(Progress)) -> Result<Progress, Error> {
        let pool = &self.postgres.pool;
        let estimate = answered(store::items_estimate(pool)).await?;
        let mut so_far = Progress { of: u64::try_from(estimate).unwrap_or_default(), ..Progress::default() };
        let mut after = i64::MIN;
        loop {
            let page = answered(store::items_after(pool, after, PAGE)).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            for part in parts(page) {
                answered(store::put(pool, &part, Equal::Rewrite)).await?;
                so_far.written += part.len() as u64;
                if let Some(elasticsearch) = &self.elasticsearch {
                    elasticsearch.write(part.into_iter().map(Write::Put).collect()).await?;
                }
            }
            so_far.of = so_far.of.max(so_far.written);
            progress(so_far);
        }
        so_far.removed += self.remove_gone().await?;
        if let Some(elasticsearch) = &self.elasticsearch {
            so_far.removed += self.remove_gone_from(elasticsearch).await?;
        }
        answered(store::forget_removed(pool)).await?;
        so_far.of = so_far.written;
        progress(so_far);
        Ok(so_far)
    }

    /// Enqueues the job, if there is anything for it; however many processes do, there is one.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database cannot take it now.
    pub async fn enqueue_reindex(&self, queue: &Queue) -> Result<(), Error> {
        if !answered(store::has_stale(&self.postgres.pool)).await? {
            return Ok(());
        }
        let mut tx = queue.begin().await?;
        answered(async {
            enqueue(&mut tx, &[NewJob::of(&ReindexItems {})?.unique("stale".to_owned())]).await?;
            tx.commit().await
        })
        .await
    }

    /// Indexes anew what an earlier release has indexed, until the time is over; returns whether nothing is left.
    async fn reindex_stale(&self, until: Instant) -> Result<bool, Error> {
        let pool = &self.postgres.pool;
        let (mut after, mut written) = (i64::MIN, 0);
        loop {
            let page = answered(store::stale_after(pool, after, PAGE)).await?;
            let Some(last) = page.last() else {
                tracing::info!(items = written, "nothing is left to be indexed anew");
                return Ok(true);
            };
            after = last.id;
            written += page.len();
            for part in parts(page) {
                // Elasticsearch first: a document counts as indexed anew once PostgreSQL has it.
                if let Some(elasticsearch) = &self.elasticsearch {
                    elasticsearch.write(part.iter().cloned().map(Write::Put).collect()).await?;
                }
                answered(store::put(pool, &part, Equal::Rewrite)).await?;
            }
            if Instant::now() > until {
                tracing::info!(items = written, "items indexed anew, and there are more");
                return Ok(false);
            }
        }
    }

    /// Documents are read before it is asked for their items, which are committed before any document of theirs: one
    /// that is not there then has been deleted, and ids do not come back.
    async fn remove_gone(&self) -> Result<u64, Error> {
        let pool = &self.postgres.pool;
        let (mut after, mut removed) = (i64::MIN, 0);
        loop {
            let page = answered(store::documents_after(pool, after, PAGE)).await?;
            let Some((last, _)) = page.last() else { return Ok(removed) };
            after = *last;
            for (id, version) in self.gone(page).await? {
                answered(store::remove(pool, id, version)).await?;
                removed += 1;
            }
        }
    }

    async fn remove_gone_from(&self, elasticsearch: &Elasticsearch) -> Result<u64, Error> {
        elasticsearch.prepare().await?;
        elasticsearch.refresh().await?;
        let (mut after, mut removed) = (i64::MIN, 0);
        loop {
            let page = elasticsearch.documents_after(after, PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(removed) };
            after = *last;
            let gone = self.gone(page).await?;
            removed += gone.len() as u64;
            elasticsearch.write(gone.into_iter().map(|(id, version)| Write::Remove { id, version }).collect()).await?;
        }
    }

    async fn gone(&self, documents: Vec<(i64, i64)>) -> Result<Vec<(i64, i64)>, Error> {
        let ids: Vec<i64> = documents.iter().map(|(id, _)| *id).collect();
        let gone = answered(store::gone(&self.postgres.pool, &ids)).await?;
        Ok(documents.into_iter().filter(|(id, _)| gone.contains(id)).collect())
    }
}

/// A page in parts of at most [`BYTES`], or of one document.
fn parts(page: Vec<Document>) -> Vec<Vec<Document>> {
    let (mut parts, mut bytes) = (vec![Vec::new()], 0);
    for document in page {
        let size = document.title.len() + document.description.as_ref().map_or(0, String::len);
        bytes += size;
        if bytes > BYTES {
            parts.push(Vec::new());
            bytes = size;
        }
        if let Some(part) = parts.last_mut() {
            part.push(document);
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn a_page_of_long_texts_is_written_in_parts() {
        let document = |id: i64, size: usize| Document {
            id,
            version: 1,
            title: "x".repeat(size),
            description: None,
            price_cents: None,
            owner_id: 1,
            created_at: OffsetDateTime::UNIX_EPOCH,
            updated_at: OffsetDateTime::UNIX_EPOCH,
        };
        let sizes = [BYTES + 1, 1, BYTES / 2, BYTES / 2, 5, BYTES];
        let page = (0..).zip(sizes).map(|(id, size)| document(id, size)).collect();
        let ids: Vec<Vec<i64>> = parts(page).into_iter().map(|part| part.iter().map(|d| d.id).collect()).collect();
        assert_eq!(ids, [vec![0], vec![1, 2], vec![3, 4], vec![5]]);
        assert!(parts(Vec::new()).is_empty());
    }
}
