//! The daily fetch: one job per asset and provider. It fills the gaps of the last 30 days and fetches the latest days
//! again, because providers revise them.

use std::time::Duration;

use futures_util::{StreamExt, future::BoxFuture};
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use time::{Date, Duration as Span, OffsetDateTime};

pub use super::model::FetchPrices;
use super::{
    Prices,
    model::{Interval, ProviderId, Series},
    names::{CURRENCIES, UnknownName},
    providers::{CandlePage, Provider, ProviderError},
    store::{
        self,
        fetches::{self, Tally},
    },
};
use queue::{
    Failure, Job, JobId, NewJob, Origin, Outcome, Policy, Replayable, Run, Tx, enqueue,
    operator::audit::{self, Order},
    retry::Backoff,
    schedule::Work,
};
use runtime::{
    error::{Error, causes},
    time_limit::with_time_limit,
};

const STORED: &str = "millrace_prices_stored_total";
const FETCHES: &str = "millrace_daily_price_fetches_total";
const SUCCESS: &str = "millrace_prices_last_success_timestamp_seconds";
/// All values of the label `outcome`: the results of a run.
const OUTCOMES: [&str; 5] = ["done", "not_offered", "later", "failed", "dead"];

/// The name of the schedule. It is stored and must not change.
pub(crate) const SCHEDULE: &str = "daily_prices";
/// The days that are checked for gaps. All providers return this many in one response.
const DAYS: i64 = 30;
/// The latest days that are always fetched again.
const REVISED_DAYS: i64 = 3;
/// The jobs of a scheduled fire start within this time, at random, so that no provider gets all calls at once.
const SPREAD: Duration = Duration::from_secs(20);
/// Providers finish the previous day some minutes after midnight. Until this time after midnight a fetch without it is
/// repeated.
const SETTLING_TIME: Span = Span::HOUR;
const NOT_YET: &str = "yesterday is not available yet";
const NOT_YET_PAUSE: Duration = Duration::from_secs(600);
/// A fetch that failed for this long is given up. Later days have filled its gaps, or failed as well.
const MAX_AGE: Span = Span::days(3);
/// The pause after the database was unavailable.
const DATABASE_PAUSE: Duration = Duration::from_secs(5);

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    /// A failure of ours, mostly of the database.
    #[error(transparent)]
    Ours(#[from] Error),
    #[error(transparent)]
    Provider(#[from] ProviderError),
}

/// The result of enqueueing the fetches of a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnqueuedFetches {
    pub day: Date,
    /// Fetches that are new, or were given up and start again.
    pub enqueued: usize,
    /// Fetches that were enqueued before.
    pub already: usize,
}

impl Prices {
    /// Enqueues today's fetches now, except those that were enqueued before and not given up. The order is recorded.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unavailable.
    pub async fn fetch_today(&self, origin: Origin, order: &Order) -> Result<EnqueuedFetches, Error> {
        let day = self.reader.clock.now().date();
        with_time_limit(async {
            let mut tx = self.queue.begin().await?;
            let jobs = self.record_fetches(&mut tx, day).await?;
            let jobs: Vec<NewJob> = jobs.into_iter().map(|job| job.origin(origin.clone())).collect();
            let enqueued = enqueue(&mut tx, &jobs).await?.len();
            audit::record(&mut tx, order, "fetch", SCHEDULE).await?;
            tx.commit().await?;
            let all = self.reader.config.assets.len() * self.reader.config.providers.len();
            Ok(EnqueuedFetches { day, enqueued, already: all.saturating_sub(enqueued) })
        })
        .await
    }

    /// Records the fetches of a day. Returns the jobs that they need.
    async fn record_fetches(&self, tx: &mut Tx, day: Date) -> Result<Vec<NewJob>, Error> {
        let mut fetches = Vec::new();
        for asset in &self.reader.config.assets {
            let fetch = |provider: &ProviderId| FetchPrices { day, asset: asset.clone(), provider: *provider };
            fetches.extend(self.reader.config.providers.iter().map(|provider| (fetch(provider), JobId::generate())));
        }
        let new_jobs = fetches::insert_missing(tx, day, &fetches).await?;
        let new = fetches.iter().filter(|(_, id)| new_jobs.contains(&id.to_string()));
        new.map(|(fetch, id)| Ok(NewJob::of(fetch)?.id(*id))).collect()
    }
}

impl Work for Prices {
    fn jobs<'a>(&'a self, tx: &'a mut Tx, fire_time: OffsetDateTime) -> BoxFuture<'a, Result<Vec<NewJob>, Error>> {
        let spread = Backoff { base: SPREAD, cap: SPREAD };
        Box::pin(async move {
            let jobs = self.record_fetches(tx, fire_time.date()).await?;
            Ok(jobs.into_iter().map(|job| job.after(spread.wait(1))).collect())
        })
    }
}

impl Job for FetchPrices {
    const NAME: &'static str = "fetch_prices";
    type Context = Prices;

    fn policy(_: &Prices) -> Policy {
        // Calls inside a run are repeated within seconds. These attempts are for outages of up to ten hours.
        let backoff = Backoff { base: Duration::from_secs(30), cap: Duration::from_secs(3600) };
        Policy { attempts: 24, backoff, deadline: Duration::from_secs(300), concurrency: 4, ..Policy::default() }
    }

    async fn run(self, prices: Prices, _: Run) -> Result<Outcome, Failure> {
        match self.fetch(&prices).await {
            Err(FetchError::Ours(Error::Unavailable(error))) => {
                tracing::warn!(error, asset = %self.asset, provider = %self.provider, "could not record fetched prices");
                Ok(Outcome::SnoozeBecause(DATABASE_PAUSE, error))
            }
            result => Ok(result?),
        }
    }

    async fn on_discard(self, prices: Prices, reason: String) -> Result<(), Failure> {
        let mut tx = prices.queue.begin().await?;
        fetches::lock_day(&mut tx, self.day).await?;
        let ended = fetches::give_up(&mut tx, &self, &reason).await?;
        let day = fetches::day_state(&mut tx, self.day).await?;
        tx.commit().await?;
        if ended {
            self.count("dead");
            tracing::warn!(asset = %self.asset, provider = %self.provider, day = %self.day, reason, "gave up a fetch of prices");
            self.log_completed_day(&day);
        }
        Ok(())
    }
}

impl Replayable for FetchPrices {
    async fn on_replay(self, _: Prices, tx: &mut Tx) -> Result<(), Error> {
        Ok(fetches::reopen(tx, &self).await?)
    }
}

impl FetchPrices {
    /// Runs the fetch.
    async fn fetch(&self, prices: &Prices) -> Result<Outcome, FetchError> {
        // It was ended by an earlier run whose result was lost, or was deleted.
        let Some(open) = fetches::find_open(&prices.reader.pool, self).await? else { return Ok(Outcome::Done) };
        if open.now - open.enqueued_at > MAX_AGE {
            return Ok(Outcome::Reject(format!("not fetched within {} days", MAX_AGE.whole_days())));
        }
        let mut tally = Tally::default();
        let provider = prices.reader.providers.0.iter().find(|provider| provider.id() == self.provider);
        let Some(provider) = provider else {
            tally.note = Some(format!("{} is no longer configured", self.provider));
            return Ok(self.finish(prices, "not_offered", tally).await?);
        };
        let (mut offered, mut complete, mut error, mut unknown) = (false, true, None, false);
        for currency in &prices.reader.config.currencies {
            let series = Series { asset: self.asset.clone(), currency: currency.clone(), interval: Interval::Daily };
            match self.fill(prices, &**provider, &series, &mut tally).await {
                Ok(complete_series) => (offered, complete) = (true, complete && complete_series),
                Err(FetchError::Ours(failed)) => return Err(failed.into()),
                Err(FetchError::Provider(ProviderError::NotOffered(_))) => {
                    unknown = true;
                    tally.add_note(format!("{currency} is not offered"));
                }
                Err(FetchError::Provider(later @ ProviderError::RetryLater { .. })) => {
                    error = Some(later);
                    break;
                }
                // The other currencies may succeed.
                Err(FetchError::Provider(failed)) => error = Some(failed),
            }
        }
        if unknown {
            for unknown in prices.unknown_names().await.iter().filter(|unknown| self.concerns(unknown)) {
                tally.add_note(unknown.message());
            }
        }
        let Some(error) = error else {
            if offered && !complete && prices.reader.clock.now() < self.day.midnight().assume_utc() + SETTLING_TIME {
                tally.add_note(NOT_YET.into());
                self.record_unfinished(prices, "later", tally).await?;
                return Ok(Outcome::SnoozeBecause(NOT_YET_PAUSE, NOT_YET.into()));
            }
            return Ok(self.finish(prices, if offered { "done" } else { "not_offered" }, tally).await?);
        };
        tally.add_note(error.to_string());
        let later = matches!(error, ProviderError::RetryLater { .. });
        self.record_unfinished(prices, if later { "later" } else { "failed" }, tally).await?;
        match error {
            ProviderError::RetryLater { after, .. } => Ok(Outcome::SnoozeBecause(after, causes(&error))),
            error => Err(error.into()),
        }
    }

    /// Fetches and stores what one series lacks. Returns whether the series now reaches up to the day.
    async fn fill(
        &self,
        prices: &Prices,
        provider: &dyn Provider,
        series: &Series,
        tally: &mut Tally,
    ) -> Result<bool, FetchError> {
        let to = self.day.midnight().assume_utc();
        let from = to - Span::days(DAYS);
        let stored_buckets = store::buckets(&prices.reader.pool, series, self.provider, from, to).await?;
        let last = to - Span::DAY;
        let (mut offered, mut error, mut reaches) = (false, None, stored_buckets.last() == Some(&last));
        let mut pages = provider.candles(series, first_bucket_to_fetch(&stored_buckets, from, to), to);
        while let Some(page) = pages.next().await {
            match page {
                Ok(page) => {
                    offered = true;
                    reaches |= page.candles.iter().any(|candle| candle.bucket == last);
                    self.store(prices, series, &page, tally).await?;
                }
                Err(ProviderError::NotOffered(_)) if offered => {}
                Err(failed) => error = Some(failed),
            }
        }
        error.map_or(Ok(reaches), |error| Err(error.into()))
    }

    async fn store(&self, prices: &Prices, series: &Series, page: &CandlePage, tally: &mut Tally) -> Result<(), Error> {
        for reason in &page.rejected {
            tracing::warn!(asset = %self.asset, provider = %self.provider, currency = %series.currency, reason, "rejected a price");
        }
        tally.rejected += page.rejected.len() as u64;
        let stored =
            store::upsert_candles(&prices.reader.pool, series, self.provider, &page.candles, prices.reader.clock.now())
                .await?;
        if (stored.new, stored.revised) != (0, 0)
            && let Err(error) = prices.invalidate(series).await
        {
            // Their cached charts expire anyway, so the provider is not called again for this.
            tracing::warn!(%error, asset = %self.asset, currency = %series.currency, "could not invalidate cached charts");
        }
        tally.stored += stored.new;
        tally.revised += stored.revised;
        counter!(STORED, "provider" => self.provider.as_str()).increment(stored.new + stored.revised);
        Ok(())
    }

    /// Whether an unknown name concerns this fetch: its asset, or any currency.
    fn concerns(&self, unknown: &UnknownName) -> bool {
        unknown.variable == CURRENCIES || unknown.name == self.asset.as_str()
    }

    async fn finish(&self, prices: &Prices, outcome: &'static str, tally: Tally) -> Result<Outcome, Error> {
        let finished = async {
            let mut tx = prices.queue.begin().await?;
            fetches::lock_day(&mut tx, self.day).await?;
            let finished = fetches::finish(&mut tx, self, outcome, &tally).await?;
            let day = fetches::day_state(&mut tx, self.day).await?;
            tx.commit().await?;
            Ok::<_, Error>(finished.then_some(day))
        };
        let Some(day) = with_time_limit(finished).await? else { return Ok(Outcome::Done) };
        self.count(outcome);
        if outcome == "done" {
            let now = prices.reader.clock.now().unix_timestamp();
            gauge!(SUCCESS, "provider" => self.provider.as_str()).set(now as f64);
        }
        let Tally { stored: new, revised, rejected, note } = tally;
        let (asset, provider) = (self.asset.as_str(), self.provider.as_str());
        tracing::info!(asset, provider, day = %self.day, outcome, new, revised, rejected, note, "prices fetched");
        self.log_completed_day(&day);
        Ok(Outcome::Done)
    }

    /// Records a run that will be followed by another one.
    async fn record_unfinished(&self, prices: &Prices, outcome: &'static str, tally: Tally) -> Result<(), Error> {
        fetches::add_counts(&prices.reader.pool, self, &tally).await?;
        self.count(outcome);
        let (asset, provider, note) = (self.asset.as_str(), self.provider.as_str(), tally.note);
        tracing::warn!(asset, provider, day = %self.day, outcome, note, "prices not fetched yet");
        Ok(())
    }

    fn count(&self, outcome: &'static str) {
        counter!(FETCHES, "provider" => self.provider.as_str(), "outcome" => outcome).increment(1);
    }

    /// Logs one line for the last fetch of a day.
    fn log_completed_day(&self, day: &fetches::DayState) {
        if day.open == 0 {
            let (fetches, not_offered, dead) = (day.fetches, day.not_offered, day.dead);
            tracing::info!(day = %self.day, fetches, not_offered, dead, "all fetches of the day have ended");
        }
    }
}

impl Tally {
    fn add_note(&mut self, text: String) {
        self.note = Some(self.note.take().map_or(text.clone(), |note| format!("{note}; {text}")));
    }
}

/// The first bucket to fetch: the first gap, or the first of the days that are always fetched again. One call returns
/// all days from there.
fn first_bucket_to_fetch(
    stored_buckets: &[OffsetDateTime],
    from: OffsetDateTime,
    to: OffsetDateTime,
) -> OffsetDateTime {
    let expected = (0..).map(|days| from + Span::days(days)).take_while(|bucket| *bucket < to);
    let mut stored = stored_buckets.iter();
    let gap = expected.into_iter().find(|bucket| stored.next() != Some(bucket));
    (to - Span::days(REVISED_DAYS)).min(gap.unwrap_or(to))
}

/// Describes the metrics, and registers every counter at 0.
pub(super) fn describe(providers: &[ProviderId]) {
    queue::metrics::zero(FetchPrices::NAME);
    describe_counter!(STORED, "Buckets that the daily fetch stored or revised.");
    describe_counter!(FETCHES, "Runs of the daily fetch of an asset, by outcome.");
    describe_gauge!(
        SUCCESS,
        Unit::Seconds,
        "When this process last finished a daily fetch of an asset; absent before the first."
    );
    for provider in providers.iter().map(|provider| provider.as_str()) {
        counter!(STORED, "provider" => provider).absolute(0);
        for outcome in OUTCOMES {
            counter!(FETCHES, "provider" => provider, "outcome" => outcome).absolute(0);
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
    fn fetches_from_the_first_gap_or_the_revised_days() {
        let to = datetime!(2026-11-21 0:00 UTC);
        let from = to - Span::days(DAYS);
        let all: Vec<_> = (0..DAYS).map(|day| from + Span::days(day)).collect();
        assert_eq!(first_bucket_to_fetch(&[], from, to), from);
        assert_eq!(first_bucket_to_fetch(&all, from, to), to - Span::days(3));
        assert_eq!(first_bucket_to_fetch(&all[..29], from, to), to - Span::days(3));
        assert_eq!(first_bucket_to_fetch(&all[..20], from, to), from + Span::days(20));
        assert_eq!(first_bucket_to_fetch(&all[1..], from, to), from);
        let gap: Vec<_> = all.iter().copied().filter(|bucket| *bucket != from + Span::days(7)).collect();
        assert_eq!(first_bucket_to_fetch(&gap, from, to), from + Span::days(7));
    }
}
