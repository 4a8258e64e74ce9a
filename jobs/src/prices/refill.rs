//! Refills: what a series lacks is fetched by one caller for all, and stored page by page.

use std::{sync::Arc, time::Instant};

use futures_util::StreamExt;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    ages::{missing, newest_due},
    cache::{Asked, Entry, Value, asked_key},
    hedge::{HedgedCalls, Reporter, Step},
    model::Series,
    providers::Provider,
    read::{LOOK_AGAIN, Reader, TURN, TURN_PATIENCE},
    store,
};
use crate::{boot::db::answered, error::Error};

/// From a bucket up to the end of another.
pub(super) type Span = (OffsetDateTime, OffsetDateTime);

/// What a call of a provider reports.
enum News {
    /// A page was stored, or had nothing in it.
    Page,
    /// Buckets are missing that it may have: it can be asked again after this time.
    Trouble(std::time::Duration),
}

/// What came of asking the providers.
struct Refill {
    /// What was missing at first, and at last.
    whole: Span,
    rest: Option<Span>,
    /// When providers that may have more can be asked again.
    troubles: Vec<std::time::Duration>,
    /// A provider has the series.
    offered: bool,
}

impl Reader {
    /// Asks the providers for what is missing, when it is this process's turn, and no other has done it meanwhile.
    pub(super) async fn fill(self: Arc<Self>, series: Series, from: OffsetDateTime) -> Asked {
        let (turn, token, begun) = ([asked_key(&series)], Uuid::new_v4().as_u128(), Instant::now());
        // A cache that cannot be asked delays no caller.
        while self.cache.take(&turn, token, TURN).await.is_ok_and(|taken| taken != [true])
            && begun.elapsed() < TURN_PATIENCE
        {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let asked = self.ask(&series, from).await;
        // If that fails, it ends by itself.
        let _ = self.cache.give_back(&turn, token).await;
        asked
    }

    async fn ask(self: &Arc<Self>, series: &Series, from: OffsetDateTime) -> Asked {
        let now = self.now();
        let (before, counts_until) = match self.asked(series).await {
            Some((asked, until)) => (Some(asked), until),
            None => (None, now + self.ages.absent),
        };
        let whole = match self.gap(series, from, now, before).await {
            Ok(Some(whole)) if !before.is_some_and(|before| before.is_paused(whole.0, now)) => whole,
            Ok(_) => return before.unwrap_or(Asked::nothing(now)),
            Err(error) => {
                tracing::warn!(%error, "prices are not fetched");
                return Asked { failed: true, ..before.unwrap_or(Asked::nothing(now)) };
            }
        };
        let refill = self.refill(series, whole, from, now, before).await;
        let asked = self.conclude(before, series, now, &refill);
        let entry = Entry { value: Value::Asked(asked), fresh_until: counts_until, generation: self.salt };
        self.keep(&asked_key(series), Arc::new(entry)).await;
        if refill.offered
            && let Err(error) = self.renew(series).await
        {
            tracing::debug!(%error, "others may show an older chart until it is due");
        }
        asked
    }

    /// Asks one provider after the other, without waiting for those that are slow, until nothing is missing.
    async fn refill(
        self: &Arc<Self>,
        series: &Series,
        whole: Span,
        from: OffsetDateTime,
        now: OffsetDateTime,
        before: Option<Asked>,
    ) -> Refill {
        let mut calls = HedgedCalls::new(&self.providers, self.ages.hedge);
        let mut refill = Refill { whole, rest: Some(whole), troubles: Vec::new(), offered: false };
        while let Some(span) = refill.rest {
            match calls.next().await {
                Step::Call(provider) => {
                    let (this, series) = (self.clone(), series.clone());
                    calls.spawn(|reporter| async move { this.store_pages(&*provider, &series, span, &reporter).await });
                }
                Step::News(News::Trouble(after)) => refill.troubles.push(after),
                Step::News(News::Page) => {
                    refill.offered = true;
                    match self.gap(series, from, now, before).await {
                        Ok(rest) => refill.rest = rest,
                        Err(error) => {
                            tracing::warn!(%error, "what is missing cannot be read");
                            refill.troubles.push(self.ages.failed);
                        }
                    }
                }
                Step::Finished => break,
            }
        }
        refill
    }

    /// Stores the pages of a provider one by one, as long as they are waited for.
    async fn store_pages(&self, provider: &dyn Provider, series: &Series, (from, to): Span, reporter: &Reporter<News>) {
        let mut pages = provider.candles(series, from, to);
        while let Some(page) = pages.next().await {
            let news = match self.counted(provider.source(), page) {
                Ok(page) if page.candles.is_empty() => News::Page,
                Ok(page) => {
                    let put = store::put(&self.pool, series, provider.source(), &page.candles, self.now());
                    match answered(put).await {
                        Ok(_) => News::Page,
                        Err(error) => {
                            tracing::warn!(%error, "prices could not be stored");
                            News::Trouble(self.ages.failed)
                        }
                    }
                }
                Err(Some(after)) => News::Trouble(after),
                Err(None) => return,
            };
            if !reporter.report(news) {
                return;
            }
        }
    }

    async fn gap(
        &self,
        series: &Series,
        from: OffsetDateTime,
        now: OffsetDateTime,
        asked: Option<Asked>,
    ) -> Result<Option<Span>, Error> {
        let to = series.interval.bucket(now);
        let points = answered(store::series(&self.pool, series, &self.config.providers, from, to)).await?;
        let there = points.iter().map(|point| point.bucket);
        Ok(missing(series.interval, from, now, there, asked.map(|asked| (asked.from, asked.to))))
    }

    /// What is known after asking.
    fn conclude(&self, before: Option<Asked>, series: &Series, now: OffsetDateTime, refill: &Refill) -> Asked {
        let (before, whole) = (before.unwrap_or(Asked::nothing(now)), refill.whole);
        let offered = refill.offered || before.offered;
        let known = Asked { failed: false, offered, tried_from: whole.0, ..before };
        let Some((_, end)) = refill.rest else { return known.widened(whole).paused(now) };
        if !refill.troubles.is_empty() {
            return Asked { failed: true, ..known.paused(now + self.pause(&refill.troubles)) };
        }
        if !known.offered {
            return known.paused(now + self.ages.unknown);
        }
        let newest = newest_due(series.interval, now);
        // The newest one will come; what is older and was not there will not.
        if end > newest {
            known.widened((whole.0, newest)).paused(now + self.ages.late)
        } else {
            known.widened(whole).paused(now)
        }
    }
}
