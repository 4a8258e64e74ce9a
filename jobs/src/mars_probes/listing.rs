//! All probes, read page by page ahead of whoever asked: never more than a page in memory for one that is slow, and no
//! connection held between two pages.

use sqlx::PgPool;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tracing::Instrument;

use super::{Placed, store};
use crate::{boot::db::answered, error::Error};

/// Probes on a page: some 90 KiB as JSON. 100,000 probes take 100 statements.
pub const PAGE: i64 = 1_000;

/// One page, and whether it is the last: a listing without such a page is broken off, not ended.
#[derive(Debug)]
pub struct Page {
    pub probes: Vec<Placed>,
    pub is_last: bool,
}

/// The pages of a listing. Whoever drops it ends the reading.
#[derive(Debug)]
pub struct Listing {
    /// Read before anything is answered, so that a database which is away is told by a status.
    first: Option<Page>,
    rest: Option<Receiver<Result<Page, Error>>>,
}

impl Listing {
    /// Begins with the first page after `after`. It ends with what is the newest now, so that no number of new ones
    /// can make it endless.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database cannot be asked now.
    pub(super) async fn begin(pool: &PgPool, after: i64) -> Result<Self, Error> {
        let probes = answered(store::page(pool, after, i64::MAX, PAGE)).await?;
        let Some(last) = probes.last().map(|probe| probe.number).filter(|_| is_full(&probes)) else {
            return Ok(Self { first: Some(Page { probes, is_last: true }), rest: None });
        };
        let newest = answered(store::newest(pool)).await?;
        // The page on its way; the task has the one after it only when this one is taken.
        let (sender, rest) = channel(1);
        tokio::spawn(read(pool.clone(), last, newest, sender).in_current_span());
        Ok(Self { first: Some(Page { probes, is_last: false }), rest: Some(rest) })
    }

    /// The next page; `None` after the last.
    ///
    /// # Errors
    /// Why there is no more, although there should be.
    pub async fn next(&mut self) -> Option<Result<Page, Error>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        let page = self.rest.as_mut()?.recv().await;
        let page = page.unwrap_or_else(|| Err(Error::Internal("the listing of probes broke off".into())));
        if page.as_ref().map_or(true, |page| page.is_last) {
            self.rest = None;
        }
        Some(page)
    }
}

fn is_full(probes: &[Placed]) -> bool {
    i64::try_from(probes.len()).is_ok_and(|length| length >= PAGE)
}

/// Reads in a task of its own, so that no reader can stop in the middle of a statement. A page is read only when there
/// is room for it.
async fn read(pool: PgPool, mut after: i64, newest: i64, sender: Sender<Result<Page, Error>>) {
    while let Ok(room) = sender.reserve().await {
        let page = answered(store::page(&pool, after, newest, PAGE)).await.map(|probes| {
            let is_last = !is_full(&probes);
            after = probes.last().map_or(after, |probe| probe.number);
            Page { probes, is_last }
        });
        let goes_on = page.as_ref().is_ok_and(|page| !page.is_last);
        room.send(page);
        if !goes_on {
            return;
        }
    }
}
