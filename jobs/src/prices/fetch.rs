//! The daily fetch: one job for each asset and source, which fills what is missing of the last month and asks again for
//! the latest days, since sources revise them.

use std::time::Duration;

use futures_util::{StreamExt, future::BoxFuture};
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use serde::{Deserialize, Serialize};
use time::{Date, Duration as Span, OffsetDateTime};

use super::{
    Prices,
    model::{AssetId, Interval, Series, Source},
    names::{CURRENCIES, UnknownName},
    providers::{Fetched, Provider, Trouble},
    store::{
        self,
        fetches::{self, Tally},
    },
};
use crate::{
    boot::db::answered,
    error::{Error, causes},
    queue::{self, Failure, Job, JobId, NewJob, Origin, Outcome, Policy, Revive, Run, Tx, enqueue, retry::Backoff},
    schedule::Work,
};

const STORED: &str = "millrace_prices_stored_total";
const FETCHES: &str = "millrace_daily_price_fetches_total";
const SUCCESS: &str = "millrace_prices_last_success_timestamp_seconds";
/// Every value of the label `outcome`: what a run came to.
const OUTCOMES: [&str; 5] = ["done", "not_offered", "later", "failed", "dead"];

/// The name of the schedule, for ever.
pub(crate) const SCHEDULE: &str = "daily_prices";
/// What is looked at for gaps: all sources have this much in one answer.
const DAYS: i64 = 30;
/// Asked for again, there or not.
const REVISED_DAYS: i64 = 3;
/// The jobs of a scheduled fire begin within this time, each at its own moment: no source is called by all at once.
const SPREAD: Duration = Duration::from_secs(20);
/// Sources have yesterday some minutes after midnight; who asks before is answered later, until an hour after it.
const SETTLED: Span = Span::HOUR;
const NOT_YET: Duration = Duration::from_secs(600);
/// A fetch that could not be made for so long is given up: later days have filled its gaps, or failed like it.
const OLD: Span = Span::days(3);
/// The pause after the database could not be asked.
const OUR_TROUBLE: Duration = Duration::from_secs(5);

// Named here, since payloads are kept: the crate's own form changes with its features.
time::serde::format_description!(iso_date, Date, "[year]-[month]-[day]");

/// Fetches the daily prices of an asset up to a day, from one source.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FetchPrices {
    /// Whose fetch it is; the prices are of the days before.
    #[serde(with = "iso_date")]
    pub day: Date,
    pub asset: AssetId,
    pub source: Source,
}

/// What became of asking for a day's fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub day: Date,
    /// Fetches that are new, or were given up and begin again.
    pub enqueued: usize,
    /// Fetches that were asked for before.
    pub already: usize,
}

impl Prices {
    /// Enqueues today's fetch now, but for what was asked for before and not given up.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database cannot take it now.
    pub async fn fetch_today(&self, origin: Origin) -> Result<Asked, Error> {
        let day = self.clock.now().date();
        answered(async {
            let mut tx = self.queue.begin().await?;
            let jobs = self.ask(&mut tx, day).await?;
            let jobs: Vec<NewJob> = jobs.into_iter().map(|job| job.origin(origin.clone())).collect();
            let enqueued = enqueue(&mut tx, &jobs).await?.len();
            tx.commit().await?;
            let all = self.config.assets.len() * self.config.providers.len();
            Ok(Asked { day, enqueued, already: all.saturating_sub(enqueued) })
        })
        .await
    }

    /// Records the fetch of a day; answers the jobs that it needs.
    async fn ask(&self, tx: &mut Tx, day: Date) -> Result<Vec<NewJob>, Error> {
        let (mut asked, mut jobs) = (Vec::new(), Vec::new());
        for asset in &self.config.assets {
            for source in self.config.providers.iter().copied() {
                let id = JobId::generate();
                asked.push((asset.clone(), source, id));
                jobs.push((id.to_string(), NewJob::of(&FetchPrices { day, asset: asset.clone(), source })?.id(id)));
            }
        }
        let needed = fetches::ask(tx, day, &asked).await?;
        Ok(jobs.into_iter().filter(|(id, _)| needed.contains(id)).map(|(_, job)| job).collect())
    }
}

impl Work for Prices {
    fn jobs<'a>(&'a self, tx: &'a mut Tx, fire_time: OffsetDateTime) -> BoxFuture<'a, Result<Vec<NewJob>, Error>> {
        let spread = Backoff { base: SPREAD, cap: SPREAD };
        Box::pin(async move {
            let jobs = self.ask(tx, fire_time.date()).await?;
            Ok(jobs.into_iter().map(|job| job.after(spread.wait(1))).collect())
        })
    }
}

impl Job for FetchPrices {
    const NAME: &'static str = "fetch_prices";
    type Context = Prices;

    fn policy(_: &Prices) -> Policy {
        // Calls inside a run are repeated within seconds; this is for outages: some ten hours of them.
        let backoff = Backoff { base: Duration::from_secs(30), cap: Duration::from_secs(3600) };
        Policy { attempts: 24, backoff, deadline: Duration::from_secs(300), concurrency: 4 }
    }

    async fn run(self, prices: Prices, _: Run) -> Result<Outcome, Failure> {
        match self.fetch(&prices).await {
            Err(Error::Unavailable(error)) => {
                tracing::warn!(error, asset = %self.asset, provider = %self.source, "could not record what was fetched");
                Ok(Outcome::SnoozeBecause(OUR_TROUBLE, error))
            }
            Err(error) => Err(error.into()),
            Ok(ended) => ended,
        }
    }

    async fn bury(self, prices: Prices, reason: String) -> Result<(), Failure> {
        let mut tx = prices.queue.begin().await?;
        fetches::hold_day(&mut tx, self.day).await?;
        let ended = fetches::give_up(&mut tx, self.day, &self.asset, self.source, &reason).await?;
        let day = fetches::day(&mut tx, self.day).await?;
        tx.commit().await?;
        if ended {
            self.count("dead");
            tracing::warn!(asset = %self.asset, provider = %self.source, day = %self.day, reason, "PRICES_GIVEN_UP");
            self.tell_day(&day);
        }
        Ok(())
    }
}

impl Revive for FetchPrices {
    async fn revive(self, _: Prices, tx: &mut Tx) -> Result<(), Error> {
        Ok(fetches::revive(tx, self.day, &self.asset, self.source).await?)
    }
}

impl FetchPrices {
    /// The error is ours; what the source did is in the result.
    async fn fetch(&self, prices: &Prices) -> Result<Result<Outcome, Failure>, Error> {
        let open = answered(fetches::open(&prices.pool, self.day, &self.asset, self.source)).await?;
        // Ended by an earlier run whose result was lost, or deleted.
        let Some(open) = open else { return Ok(Ok(Outcome::Done)) };
        if open.now - open.enqueued_at > OLD {
            return Ok(Ok(Outcome::Reject(format!("not fetched within {} days", OLD.whole_days()))));
        }
        let mut tally = Tally::default();
        let provider = prices.providers.0.iter().find(|provider| provider.source() == self.source);
        let Some(provider) = provider else {
            tally.note = Some(format!("{} is not configured any more", self.source));
            return self.finish(prices, "not_offered", tally).await;
        };
        let (mut offered, mut complete, mut trouble, mut unknown) = (false, true, None, false);
        for currency in &prices.config.currencies {
            let series = Series { asset: self.asset.clone(), currency: currency.clone(), interval: Interval::Daily };
            match self.fill(prices, &**provider, &series, &mut tally).await? {
                Ok(whole) => (offered, complete) = (true, complete && whole),
                Err(Trouble::NotOffered(_)) => {
                    unknown = true;
                    tally.say(format!("{currency} is not offered"));
                }
                Err(later @ Trouble::Later { .. }) => {
                    trouble = Some(later);
                    break;
                }
                // The other currencies may fare better.
                Err(failed) => trouble = Some(failed),
            }
        }
        if unknown {
            let names = prices.unknown_names().await.iter();
            names.filter(|unknown| self.concerns(unknown)).for_each(|unknown| tally.say(unknown.message()));
        }
        match trouble {
            None if !offered => self.finish(prices, "not_offered", tally).await,
            None if !complete && prices.clock.now() < self.day.midnight().assume_utc() + SETTLED => {
                tally.say("yesterday is not there yet".into());
                self.go_on(prices, "later", tally).await?;
                Ok(Ok(Outcome::SnoozeBecause(NOT_YET, "yesterday is not there yet".into())))
            }
            None => self.finish(prices, "done", tally).await,
            Some(trouble) => {
                tally.say(trouble.to_string());
                let later = matches!(trouble, Trouble::Later { .. });
                self.go_on(prices, if later { "later" } else { "failed" }, tally).await?;
                Ok(match trouble {
                    Trouble::Later { after, .. } => Ok(Outcome::SnoozeBecause(after, causes(&trouble))),
                    trouble => Err(trouble.into()),
                })
            }
        }
    }

    /// Fetches and stores what one series lacks; answers whether it now reaches up to the day.
    async fn fill(
        &self,
        prices: &Prices,
        provider: &dyn Provider,
        series: &Series,
        tally: &mut Tally,
    ) -> Result<Result<bool, Trouble>, Error> {
        let to = self.day.midnight().assume_utc();
        let from = to - Span::days(DAYS);
        let have = answered(store::buckets(&prices.pool, series, self.source, from, to)).await?;
        let last = to - Span::DAY;
        let (mut offered, mut trouble, mut reaches) = (false, None, have.last() == Some(&last));
        let mut pages = provider.candles(series, first_needed(&have, from, to), to);
        while let Some(page) = pages.next().await {
            match page {
                Ok(page) => {
                    offered = true;
                    reaches |= page.candles.iter().any(|candle| candle.bucket == last);
                    self.store(prices, series, &page, tally).await?;
                }
                Err(Trouble::NotOffered(_)) if offered => {}
                Err(failed) => trouble = Some(failed),
            }
        }
        Ok(trouble.map_or(Ok(reaches), Err))
    }

    async fn store(&self, prices: &Prices, series: &Series, page: &Fetched, tally: &mut Tally) -> Result<(), Error> {
        for reason in &page.rejected {
            tracing::warn!(asset = %self.asset, provider = %self.source, currency = %series.currency, reason, "PRICE_REJECTED");
        }
        tally.rejected += page.rejected.len() as u64;
        let stored = answered(store::put(&prices.pool, series, self.source, &page.candles, prices.clock.now())).await?;
        if (stored.new, stored.revised) != (0, 0)
            && let Err(error) = prices.stored(series).await
        {
            // They come to it by themselves when what is cached gets old; the source is not asked again for that.
            tracing::warn!(%error, asset = %self.asset, currency = %series.currency, "readers do not know of new prices");
        }
        tally.stored += stored.new;
        tally.revised += stored.revised;
        counter!(STORED, "provider" => self.source.as_str()).increment(stored.new + stored.revised);
        Ok(())
    }

    /// Whether an unknown name is one of this fetch: its asset, or any currency.
    fn concerns(&self, unknown: &UnknownName) -> bool {
        unknown.variable == CURRENCIES || unknown.name == self.asset.as_str()
    }

    async fn finish(
        &self,
        prices: &Prices,
        outcome: &'static str,
        tally: Tally,
    ) -> Result<Result<Outcome, Failure>, Error> {
        let finished = async {
            let mut tx = prices.queue.begin().await?;
            fetches::hold_day(&mut tx, self.day).await?;
            let finished = fetches::finish(&mut tx, self.day, &self.asset, self.source, outcome, &tally).await?;
            let day = fetches::day(&mut tx, self.day).await?;
            tx.commit().await?;
            Ok::<_, Error>(finished.then_some(day))
        };
        let Some(day) = answered(finished).await? else { return Ok(Ok(Outcome::Done)) };
        self.count(outcome);
        if outcome == "done" {
            let now = prices.clock.now().unix_timestamp();
            gauge!(SUCCESS, "provider" => self.source.as_str()).set(now as f64);
        }
        let Tally { stored: new, revised, rejected, note } = tally;
        let (asset, provider) = (self.asset.as_str(), self.source.as_str());
        tracing::info!(asset, provider, day = %self.day, outcome, new, revised, rejected, note, "PRICES_FETCHED");
        self.tell_day(&day);
        Ok(Ok(Outcome::Done))
    }

    /// Records a run after which there will be another one.
    async fn go_on(&self, prices: &Prices, outcome: &'static str, tally: Tally) -> Result<(), Error> {
        answered(fetches::note(&prices.pool, self.day, &self.asset, self.source, &tally)).await?;
        self.count(outcome);
        let (asset, provider, note) = (self.asset.as_str(), self.source.as_str(), tally.note);
        tracing::warn!(asset, provider, day = %self.day, outcome, note, "PRICES_NOT_YET_FETCHED");
        Ok(())
    }

    fn count(&self, outcome: &'static str) {
        counter!(FETCHES, "provider" => self.source.as_str(), "outcome" => outcome).increment(1);
    }

    /// One line for the fetch that was the last of its day.
    fn tell_day(&self, day: &fetches::Day) {
        if day.open == 0 {
            tracing::info!(day = %self.day, fetches = day.fetches, not_offered = day.not_offered, dead = day.dead, "PRICES_DAY_COMPLETE");
        }
    }
}

impl Tally {
    fn say(&mut self, what: String) {
        self.note = Some(self.note.take().map_or(what.clone(), |said| format!("{said}; {what}")));
    }
}

/// Where to begin: at the first gap, or at the days that are asked for again. One call has it all, gaps or not.
fn first_needed(have: &[OffsetDateTime], from: OffsetDateTime, to: OffsetDateTime) -> OffsetDateTime {
    let expected = (0..).map(|days| from + Span::days(days)).take_while(|bucket| *bucket < to);
    let mut stored = have.iter();
    let gap = expected.into_iter().find(|bucket| stored.next() != Some(bucket));
    (to - Span::days(REVISED_DAYS)).min(gap.unwrap_or(to))
}

/// Says what the metrics mean, and makes them visible before anything happened.
pub(super) fn describe(sources: &[Source]) {
    queue::metrics::zero(FetchPrices::NAME);
    describe_counter!(STORED, "Buckets that the daily fetch stored or revised.");
    describe_counter!(FETCHES, "Runs of the daily fetch of an asset, by what they came to.");
    describe_gauge!(SUCCESS, Unit::Seconds, "When this process last made a daily fetch of an asset; 0: not yet.");
    for source in sources.iter().map(|source| source.as_str()) {
        counter!(STORED, "provider" => source).absolute(0);
        gauge!(SUCCESS, "provider" => source).set(0.0);
        for outcome in OUTCOMES {
            counter!(FETCHES, "provider" => source, "outcome" => outcome).absolute(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn the_payload_stays_readable() {
        let json = r#"{"day":"2026-11-21","asset":"bitcoin","source":"coingecko"}"#;
        let job: FetchPrices = serde_json::from_str(json).expect("a payload");
        assert_eq!(serde_json::to_string(&job).expect("a payload"), json);
    }

    #[test]
    fn begins_at_the_first_gap_or_where_sources_revise() {
        let to = datetime!(2026-11-21 0:00 UTC);
        let from = to - Span::days(DAYS);
        let all: Vec<_> = (0..DAYS).map(|day| from + Span::days(day)).collect();
        assert_eq!(first_needed(&[], from, to), from);
        assert_eq!(first_needed(&all, from, to), to - Span::days(3));
        assert_eq!(first_needed(&all[..29], from, to), to - Span::days(3));
        assert_eq!(first_needed(&all[..20], from, to), from + Span::days(20));
        assert_eq!(first_needed(&all[1..], from, to), from);
        let gap: Vec<_> = all.iter().copied().filter(|bucket| *bucket != from + Span::days(7)).collect();
        assert_eq!(first_needed(&gap, from, to), from + Span::days(7));
    }
}
