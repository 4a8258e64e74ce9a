//! Streaming list of all probes. It reads page by page, ahead of the client. A slow client holds no connection between
//! two pages, and at most a page is buffered for it.

use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::{grid::ListedProbe, store};
use runtime::{db::Pool, error::Error, telemetry::scope};

/// The page size: about 90 KiB of JSON. 100,000 probes take 100 statements.
pub const PAGE: i64 = 1_000;

/// One page, and whether it is the last one. A listing that ends without a last page is incomplete.
#[derive(Debug)]
pub struct Page {
    pub probes: Vec<ListedProbe>,
    pub is_last: bool,
}

/// The pages of a listing. Dropping it stops the reading.
#[derive(Debug)]
pub struct Listing {
    /// Read before the response starts, so that an unavailable database still becomes a status code.
    first: Option<Page>,
    rest: Option<Receiver<Result<Page, Error>>>,
}

impl Listing {
    /// Reads the first page after the number `after`. The listing ends with the probe that is the newest now: probes
    /// created meanwhile cannot make it endless.
    ///
    /// # Errors
    /// Returns [`Error::Unavailable`] if the database cannot be read now.
    pub(super) async fn begin(pool: &Pool, after: i64) -> Result<Self, Error> {
        let probes = store::page(pool, after, i64::MAX, PAGE).await?;
        let Some(last) = probes.last().map(|probe| probe.number).filter(|_| is_full(&probes)) else {
            return Ok(Self { first: Some(Page { probes, is_last: true }), rest: None });
        };
        let newest = store::newest_number(pool).await?;
        // One page is buffered. The task reads the next one only after the buffered one is received.
        let (sender, rest) = channel(1);
        tokio::spawn(scope::inherit(read_pages(pool.clone(), last, newest, sender)));
        Ok(Self { first: Some(Page { probes, is_last: false }), rest: Some(rest) })
    }

    /// Returns the next page; `None` after the last one.
    ///
    /// # Errors
    /// Fails if the database could not be read before the last page.
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

fn is_full(probes: &[ListedProbe]) -> bool {
    i64::try_from(probes.len()).is_ok_and(|length| length >= PAGE)
}

/// Reads the pages in its own task, so that a client that disconnects cannot cancel a statement halfway. A page is read
/// only when the channel has room for it.
async fn read_pages(pool: Pool, mut after: i64, newest: i64, sender: Sender<Result<Page, Error>>) {
    while let Ok(room) = sender.reserve().await {
        let page = store::page(&pool, after, newest, PAGE).await.map(|probes| {
            let is_last = !is_full(&probes);
            after = probes.last().map_or(after, |probe| probe.number);
            Page { probes, is_last }
        });
        let has_more = page.as_ref().is_ok_and(|page| !page.is_last);
        room.send(page);
        if !has_more {
            return;
        }
    }
}
