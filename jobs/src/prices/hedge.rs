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
