//! Hedged calls: while a provider is silent, the next one is asked as well, so that one that hangs costs readers a
//! second and not its time-out.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::providers::{Provider, Providers};

/// Calls of the providers, the preferred first. Each call is a task that runs to its end even when the others had all
/// that was wanted: only so a provider that hangs is seen to hang, and left alone.
pub(super) struct HedgedCalls<T> {
    waiting: VecDeque<Arc<dyn Provider>>,
    /// After this time without news the next provider is asked.
    delay: Duration,
    started: usize,
    running: usize,
    /// Running calls for which the delay is not over.
    awaited: HashSet<usize>,
    sender: UnboundedSender<Event<T>>,
    events: UnboundedReceiver<Event<T>>,
}

enum Event<T> {
    News(T),
    End(usize),
}

/// What comes next.
pub(super) enum Step<T> {
    /// Call this provider, with [`HedgedCalls::spawn`].
    Call(Arc<dyn Provider>),
    /// A call reports this.
    News(T),
    /// Every provider was called, and every call has ended.
    Finished,
}

/// How a call reports; its end is reported when this is dropped.
pub(super) struct Reporter<T> {
    number: usize,
    sender: UnboundedSender<Event<T>>,
}

impl<T> Reporter<T> {
    /// Reports something; `false` when it is not waited for any more.
    pub(super) fn report(&self, news: T) -> bool {
        self.sender.send(Event::News(news)).is_ok()
    }
}

impl<T> Drop for Reporter<T> {
    fn drop(&mut self) {
        // Without a receiver there is nothing left to end.
        let _ = self.sender.send(Event::End(self.number));
    }
}

impl<T: Send + 'static> HedgedCalls<T> {
    /// No call yet.
    pub(super) fn new(providers: &Providers, delay: Duration) -> Self {
        let (sender, events) = unbounded_channel();
        let waiting = providers.0.iter().cloned().collect();
        Self { waiting, delay, started: 0, running: 0, awaited: HashSet::new(), sender, events }
    }

    /// Begins the call that [`Step::Call`] asked for.
    pub(super) fn spawn<F>(&mut self, call: impl FnOnce(Reporter<T>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.started += 1;
        self.running += 1;
        self.awaited.insert(self.started);
        tokio::spawn(call(Reporter { number: self.started, sender: self.sender.clone() }));
    }

    /// Waits for the next step.
    pub(super) async fn next(&mut self) -> Step<T> {
        loop {
            if self.awaited.is_empty()
                && let Some(provider) = self.waiting.pop_front()
            {
                return Step::Call(provider);
            }
            if self.running == 0 {
                return Step::Finished;
            }
            let event = tokio::select! {
                event = self.events.recv() => event,
                () = tokio::time::sleep(self.delay), if !self.waiting.is_empty() => {
                    self.awaited.clear();
                    continue;
                }
            };
            match event {
                Some(Event::News(news)) => return Step::News(news),
                Some(Event::End(number)) => {
                    self.running -= 1;
                    self.awaited.remove(&number);
                }
                None => return Step::Finished,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, future::BoxFuture, stream};
    use time::OffsetDateTime;
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::prices::{
        model::{AssetId, Currency, Series, Source},
        providers::{Names, Pages, Spots, Trouble},
    };

    const DELAY: Duration = Duration::from_secs(1);

    struct Idle(Source);

    impl Provider for Idle {
        fn source(&self) -> Source {
            self.0
        }

        fn candles<'a>(&'a self, _: &'a Series, _: OffsetDateTime, _: OffsetDateTime) -> Pages<'a> {
            stream::empty().boxed()
        }

        fn spots<'a>(&'a self, _: &'a [AssetId], _: &'a Currency) -> BoxFuture<'a, Spots> {
            Box::pin(async { Spots::default() })
        }

        fn names(&self) -> BoxFuture<'_, Result<Names, Trouble>> {
            Box::pin(async { Ok(Names::default()) })
        }
    }

    fn calls() -> HedgedCalls<Source> {
        let idle = |source| Arc::new(Idle(source)) as Arc<dyn Provider>;
        HedgedCalls::new(&Providers(Source::ALL.into_iter().map(idle).collect()), DELAY)
    }

    /// The next step as text.
    async fn step(calls: &mut HedgedCalls<Source>) -> String {
        match calls.next().await {
            Step::Call(provider) => format!("call {}", provider.source()),
            Step::News(source) => format!("news of {source}"),
            Step::Finished => "finished".to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_call_is_overtaken_and_its_news_still_count() {
        let (begun, mut calls) = (Instant::now(), calls());
        assert_eq!(step(&mut calls).await, "call coingecko");
        calls.spawn(|reporter| async move {
            sleep(DELAY * 10).await;
            reporter.report(Source::CoinGecko);
        });
        assert_eq!(step(&mut calls).await, "call kraken");
        assert_eq!(begun.elapsed(), DELAY);
        // One that ends without news is followed at once, although the first is still running.
        calls.spawn(|reporter| async move { drop(reporter) });
        assert_eq!(step(&mut calls).await, "call coinbase");
        assert_eq!(begun.elapsed(), DELAY);
        // News put off the next call.
        calls.spawn(|reporter| async move {
            for _ in 0..2 {
                sleep(DELAY * 3 / 4).await;
                reporter.report(Source::Coinbase);
            }
        });
        assert_eq!(step(&mut calls).await, "news of coinbase");
        assert_eq!(step(&mut calls).await, "news of coinbase");
        assert_eq!(step(&mut calls).await, "call binance");
        assert_eq!(begun.elapsed(), DELAY * 5 / 2);
        calls.spawn(|reporter| async move { drop(reporter) });
        assert_eq!(step(&mut calls).await, "news of coingecko");
        assert_eq!(begun.elapsed(), DELAY * 10);
        assert_eq!(step(&mut calls).await, "finished");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_goes_on_when_its_news_are_not_wanted_any_more() {
        let mut calls = calls();
        assert_eq!(step(&mut calls).await, "call coingecko");
        let (sender, received) = tokio::sync::oneshot::channel();
        calls.spawn(|reporter| async move {
            sleep(DELAY * 10).await;
            let _ = sender.send(reporter.report(Source::CoinGecko));
        });
        drop(calls);
        assert_eq!(received.await, Ok(false));
    }
}
