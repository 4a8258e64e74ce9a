//! Hedged calls: while one provider is slow, the next one is called as well. So a provider that hangs delays readers by
//! 1 s instead of its time-out.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Calls to the providers `P`, in the order of preference. Each call is a task that runs to its end, even when its result
/// is no longer needed. Only so does a hanging provider reach its time-out and open its circuit breaker.
pub(super) struct HedgedCalls<P, T> {
    waiting: VecDeque<P>,
    /// After this time without a report the next provider is called.
    delay: Duration,
    started: usize,
    running: usize,
    /// Running calls whose delay is not over.
    awaited: HashSet<usize>,
    sender: UnboundedSender<Event<T>>,
    events: UnboundedReceiver<Event<T>>,
}

enum Event<T> {
    Report(T),
    End(usize),
}

/// The next step of the caller.
pub(super) enum Step<P, T> {
    /// Call this provider with [`HedgedCalls::spawn`].
    Call(P),
    /// A call reported this.
    Report(T),
    /// Every provider was called, and every call has ended.
    Finished,
}

/// The sender of a call's reports. Dropping it reports the end of the call.
pub(super) struct Reporter<T> {
    number: usize,
    sender: UnboundedSender<Event<T>>,
}

impl<T> Reporter<T> {
    /// Sends a report. Returns `false` when the receiver is gone.
    pub(super) fn report(&self, report: T) -> bool {
        self.sender.send(Event::Report(report)).is_ok()
    }
}

impl<T> Drop for Reporter<T> {
    fn drop(&mut self) {
        // Fails only without a receiver, which does not need the event.
        let _ = self.sender.send(Event::End(self.number));
    }
}

impl<P, T: Send + 'static> HedgedCalls<P, T> {
    /// Creates the queue of providers. No call is running.
    pub(super) fn new(providers: impl IntoIterator<Item = P>, delay: Duration) -> Self {
        let (sender, events) = unbounded_channel();
        let waiting = providers.into_iter().collect();
        Self { waiting, delay, started: 0, running: 0, awaited: HashSet::new(), sender, events }
    }

    /// Starts the call that [`Step::Call`] requested.
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
    pub(super) async fn next(&mut self) -> Step<P, T> {
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
                Some(Event::Report(report)) => return Step::Report(report),
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
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::prices::model::ProviderId;

    const DELAY: Duration = Duration::from_secs(1);

    fn calls() -> HedgedCalls<ProviderId, ProviderId> {
        HedgedCalls::new(ProviderId::ALL, DELAY)
    }

    /// The next step as text.
    async fn step(calls: &mut HedgedCalls<ProviderId, ProviderId>) -> String {
        match calls.next().await {
            Step::Call(provider) => format!("call {provider}"),
            Step::Report(provider) => format!("report of {provider}"),
            Step::Finished => "finished".to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_call_is_hedged_and_its_report_still_counts() {
        let (started_at, mut calls) = (Instant::now(), calls());
        assert_eq!(step(&mut calls).await, "call coingecko");
        calls.spawn(|reporter| async move {
            sleep(DELAY * 10).await;
            reporter.report(ProviderId::CoinGecko);
        });
        assert_eq!(step(&mut calls).await, "call kraken");
        assert_eq!(started_at.elapsed(), DELAY);
        // A call that ends without a report is followed at once, although the first call is still running.
        calls.spawn(|reporter| async move { drop(reporter) });
        assert_eq!(step(&mut calls).await, "call coinbase");
        assert_eq!(started_at.elapsed(), DELAY);
        // A report delays the next call.
        calls.spawn(|reporter| async move {
            for _ in 0..2 {
                sleep(DELAY * 3 / 4).await;
                reporter.report(ProviderId::Coinbase);
            }
        });
        assert_eq!(step(&mut calls).await, "report of coinbase");
        assert_eq!(step(&mut calls).await, "report of coinbase");
        assert_eq!(step(&mut calls).await, "call binance");
        assert_eq!(started_at.elapsed(), DELAY * 5 / 2);
        calls.spawn(|reporter| async move { drop(reporter) });
        assert_eq!(step(&mut calls).await, "report of coingecko");
        assert_eq!(started_at.elapsed(), DELAY * 10);
        assert_eq!(step(&mut calls).await, "finished");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_runs_to_its_end_when_its_report_is_not_needed() {
        let mut calls = calls();
        assert_eq!(step(&mut calls).await, "call coingecko");
        let (sender, received) = tokio::sync::oneshot::channel();
        calls.spawn(|reporter| async move {
            sleep(DELAY * 10).await;
            let _ = sender.send(reporter.report(ProviderId::CoinGecko));
        });
        drop(calls);
        assert_eq!(received.await, Ok(false));
    }
}
