//! Batches concurrent calls into one statement: while one batch is being written, the next one fills.
//!
//! If no batch is being written, a call is written at once. Otherwise the calls wait for the end of that batch, or until they
//! are enough for another one next to it (`turns`).

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::{load::Load, turns::Turns};
use runtime::{
    db::Pool,
    error::Error,
    telemetry::traces::span::{Span, TraceContext},
    time_limit::with_time_limit,
};

struct Call<T, R> {
    item: T,
    caller: TraceContext,
    response: oneshot::Sender<Result<R, Error>>,
}

/// A queue of calls that are written together. Clones share it.
pub struct Batch<T, R> {
    calls: mpsc::Sender<Call<T, R>>,
    turns: Arc<Turns>,
    load: Option<Arc<Load>>,
}

impl<T, R> Clone for Batch<T, R> {
    fn clone(&self) -> Self {
        Self { calls: self.calls.clone(), turns: self.turns.clone(), load: self.load.clone() }
    }
}

/// How many calls wait, and how many are written at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Batches that are written at the same time.
    pub writers: usize,
    /// Items in one batch.
    pub size: usize,
    /// Calls that may wait. Further ones are refused at once instead of after a long wait and a timeout.
    pub waiting: usize,
    /// A call by [`Batch::call_or_refuse`] that is likely to wait longer is refused at once; `None` without this limit.
    pub wait: Option<Duration>,
}

impl<T, R> Batch<T, R>
where
    T: Clone + Send + Sync + 'static,
    R: Send + 'static,
{
    /// Starts the writers. `write` returns one result per item, in the same order. When it fails for a batch, the batch
    /// is split into halves until the refused row is alone. So a refused row fails only its own caller and costs a
    /// batch of 500 at most 18 more writes, instead of the 500 of a write per row.
    pub fn start<F, W>(limits: Limits, write: W) -> Self
    where
        F: Future<Output = Result<Vec<R>, Error>> + Send + 'static,
        W: Fn(Vec<T>) -> F + Clone + Send + Sync + 'static,
    {
        let (calls, receiver) = mpsc::channel(limits.waiting);
        let receiver = Arc::new(Mutex::new(receiver));
        let load = limits.wait.map(|wait| Arc::new(Load::new(limits.size * limits.writers, wait)));
        let turns = Arc::new(Turns::new(limits.writers, limits.size));
        for _ in 0..limits.writers {
            tokio::spawn(write_batches(receiver.clone(), turns.clone(), limits.size, load.clone(), write.clone()));
        }
        Self { calls, turns, load }
    }

    /// Like [`Self::start`], for a `write` that takes a pool.
    pub fn on_pool<F, W>(limits: Limits, pool: &Pool, write: W) -> Self
    where
        F: Future<Output = Result<Vec<R>, Error>> + Send + 'static,
        W: Fn(Pool, Vec<T>) -> F + Clone + Send + Sync + 'static,
    {
        let pool = pool.clone();
        Self::start(limits, move |items| write(pool.clone(), items))
    }

    /// Like [`Self::call`], unless the item would wait longer than [`Limits::wait`]. `key` recognises a refused item that comes
    /// back when its time has come: it is then preferred.
    ///
    /// # Errors
    /// The error of the writer. [`Error::Overloaded`] when the item would wait too long, [`Error::Unavailable`] when too many
    /// items wait already.
    pub async fn call_or_refuse(&self, key: &str, item: T) -> Result<R, Error> {
        if let Some(load) = &self.load {
            load.admit(key, self.waiting())?;
        }
        self.call(item).await
    }

    /// How many calls wait.
    fn waiting(&self) -> usize {
        self.calls.max_capacity() - self.calls.capacity()
    }

    /// Writes `item` together with the other waiting items. It waits as long as it must.
    ///
    /// # Errors
    /// The error of the writer, or [`Error::Unavailable`] when too many items wait already.
    pub async fn call(&self, item: T) -> Result<R, Error> {
        let (response, receiver) = oneshot::channel();
        self.calls
            .try_send(Call { item, caller: TraceContext::current(), response })
            .map_err(|_| Error::Unavailable("too many writes are waiting".into()))?;
        self.turns.added(self.waiting());
        receiver.await.map_err(|_| Error::Unavailable("the process is stopping".into()))?
    }
}

/// Writes until every [`Batch`] is dropped. A writer that collects items holds the lock; the others wait for it or
/// write.
async fn write_batches<T, R, F, W>(
    receiver: Arc<Mutex<mpsc::Receiver<Call<T, R>>>>,
    turns: Arc<Turns>,
    size: usize,
    load: Option<Arc<Load>>,
    write: W,
) where
    T: Clone,
    F: Future<Output = Result<Vec<R>, Error>>,
    W: Fn(Vec<T>) -> F,
{
    // It has room for a whole batch from the first one on. A new one for each batch would be an allocation of that size.
    let mut received = Vec::new();
    loop {
        {
            let mut receiver = receiver.lock().await;
            turns.wait(&receiver).await;
            if receiver.recv_many(&mut received, size).await == 0 {
                return;
            }
            turns.begin(received.len(), receiver.len());
        }
        let count = received.len();
        // A caller that has gone got no promise, so its item is not written.
        let calls: Vec<_> = received.drain(..).filter(|call| !call.response.is_closed()).collect();
        // Without a call there is nothing to write, and the loop below ends at once.
        let mut parts = vec![calls];
        while let Some(mut part) = parts.pop().filter(|part| !part.is_empty()) {
            let items: Vec<T> = part.iter().map(|call| call.item.clone()).collect();
            let span = Span::batch("batch", part.iter().map(|call| &call.caller));
            let begun = Instant::now();
            let written = span.attach_to(guarded(write(items))).await;
            if let Some(load) = &load {
                load.record(begun.elapsed());
            }
            if written.is_err() {
                span.record_error("batch");
            }
            drop(span);
            match written {
                Ok(results) => {
                    for (call, result) in part.into_iter().zip(results) {
                        let _ = call.response.send(Ok(result));
                    }
                }
                Err(Error::Internal(_)) if part.len() > 1 => {
                    // The first half is written next.
                    parts.push(part.split_off(part.len() / 2));
                    parts.push(part);
                }
                Err(error) => {
                    for call in part {
                        let _ = call.response.send(Err(error.clone()));
                    }
                }
            }
        }
        turns.end(count);
    }
}

/// Runs a write with a time limit. A write that hangs or panics fails its callers, and the writer goes on.
async fn guarded<T>(write: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let written = AssertUnwindSafe(with_time_limit(write)).catch_unwind().await;
    written.unwrap_or_else(|_| Err(Error::Internal("a batched write panicked".into())))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as Log;

    use super::*;
    use crate::turns;

    const LIMITS: Limits = Limits { writers: 1, size: 100, waiting: 1000, wait: None };

    #[tokio::test]
    async fn calls_during_a_write_share_the_next_one() {
        let batches = Arc::new(Log::new(Vec::new()));
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let (log, opened) = (batches.clone(), gate.clone());
        let batch = Batch::start(LIMITS, move |items: Vec<u32>| {
            let (log, opened) = (log.clone(), opened.clone());
            async move {
                opened.acquire().await.map_err(|_| Error::Internal("closed".into()))?.forget();
                log.lock().unwrap_or_else(|e| e.into_inner()).push(items.clone());
                Ok(items)
            }
        });
        let calls: Vec<_> = (0..10)
            .map(|n| {
                let batch = batch.clone();
                tokio::spawn(async move { batch.call(n).await })
            })
            .collect();
        gate.add_permits(2);
        for (n, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.ok().and_then(Result::ok), u32::try_from(n).ok());
        }
        assert_eq!(batches.lock().map(|log| log.iter().map(Vec::len).sum::<usize>()).ok(), Some(10));
        assert!(batches.lock().is_ok_and(|log| log.len() <= 2), "only two writes were let through");
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_next_to_another_begins_with_its_share_of_the_calls() {
        let (begun, mut beginnings) = mpsc::unbounded_channel();
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let opened = gate.clone();
        let batch = Batch::start(Limits { writers: 2, ..LIMITS }, move |items: Vec<u32>| {
            let _ = begun.send(items.clone());
            let opened = opened.clone();
            async move {
                opened.acquire().await.map_err(|_| Error::Internal("closed".into()))?.forget();
                Ok(items)
            }
        });
        let started = tokio::time::Instant::now();
        let call = |n| {
            let batch = batch.clone();
            tokio::spawn(async move { batch.call(n).await })
        };
        let mut calls = vec![call(0)];
        assert_eq!(beginnings.recv().await, Some(vec![0]));
        calls.push(call(1));
        assert_eq!(beginnings.recv().await, Some(vec![1]), "nothing is known about more callers");
        // Both writers are busy, so these wait. Their number is the peak.
        calls.extend([2, 3, 4, 5].map(call));
        tokio::task::yield_now().await;
        gate.add_permits(1);
        assert_eq!(beginnings.recv().await, Some(vec![2, 3, 4, 5]));
        gate.add_permits(1);
        while !calls[1].is_finished() {
            tokio::task::yield_now().await;
        }
        calls.extend([6, 7].map(call));
        tokio::task::yield_now().await;
        assert!(beginnings.is_empty(), "two calls are less than two thirds of five");
        calls.push(call(8));
        assert_eq!(beginnings.recv().await, Some(vec![6, 7, 8]));
        assert_eq!(started.elapsed(), Duration::ZERO, "no timer was needed");
        gate.add_permits(1);
        while !calls[2].is_finished() {
            tokio::task::yield_now().await;
        }
        calls.push(call(9));
        assert_eq!(beginnings.recv().await, Some(vec![9]));
        assert!(started.elapsed() >= turns::SLOW, "{:?}", started.elapsed());
        gate.add_permits(2);
        for call in calls {
            assert!(call.await.is_ok_and(|written| written.is_ok()));
        }
    }

    #[tokio::test]
    async fn a_refused_row_fails_its_own_caller_only() {
        let batch = Batch::start(LIMITS, |items: Vec<u32>| async move {
            if items.contains(&3) { Err(Error::Internal("refused".into())) } else { Ok(items) }
        });
        let calls = futures_util::future::join_all((0..6).map(|n| batch.call(n))).await;
        for (n, result) in calls.into_iter().enumerate() {
            assert_eq!(result.is_err(), n == 3, "{n}");
        }
    }

    #[tokio::test]
    async fn a_refused_row_of_a_full_batch_costs_few_writes() {
        let writes = Arc::new(Log::new(Vec::new()));
        let log = writes.clone();
        let batch =
            Batch::start(Limits { writers: 1, size: 500, waiting: 1000, wait: None }, move |items: Vec<u32>| {
                let log = log.clone();
                async move {
                    log.lock().unwrap_or_else(|e| e.into_inner()).push(items.len());
                    if items.contains(&333) { Err(Error::Internal("refused".into())) } else { Ok(items) }
                }
            });
        let calls = futures_util::future::join_all((0..500).map(|n| batch.call(n))).await;
        for (n, result) in (0..).zip(calls) {
            assert_eq!(result.ok(), (n != 333).then_some(n));
        }
        let writes = writes.lock().map(|log| log.clone()).unwrap_or_default();
        assert_eq!(writes.first(), Some(&500));
        assert!(writes.len() <= 19, "{writes:?}");
    }

    #[tokio::test]
    async fn a_panic_fails_only_its_callers() {
        let batch = Batch::start(LIMITS, |items: Vec<u32>| async move {
            assert!(!items.contains(&1), "refused loudly");
            Ok(items)
        });
        assert!(matches!(batch.call(1).await, Err(Error::Internal(_))));
        assert_eq!(batch.call(2).await.ok(), Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn callers_time_out_when_the_database_hangs() {
        let batch = Batch::start(LIMITS, |_: Vec<u32>| std::future::pending::<Result<Vec<u32>, Error>>());
        assert!(matches!(batch.call(1).await, Err(Error::Unavailable(_))));
        assert!(matches!(batch.call(2).await, Err(Error::Unavailable(_))), "the writer goes on");
    }

    #[tokio::test]
    async fn a_call_is_refused_at_once_when_too_many_wait() {
        // The only writer hangs in its first item; the second item waits, and the third one is too many.
        let limits = Limits { writers: 1, size: 1, waiting: 1, wait: None };
        let (entered, mut writing) = mpsc::unbounded_channel();
        let batch = Batch::start(limits, move |items: Vec<u32>| {
            let _ = entered.send(());
            async move {
                std::future::pending::<()>().await;
                Ok(items)
            }
        });
        let call = |n| {
            tokio::spawn({
                let batch = batch.clone();
                async move { batch.call(n).await }
            })
        };
        let first = call(1);
        assert_eq!(writing.recv().await, Some(()));
        let second = call(2);
        while batch.calls.capacity() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(batch.call(3).await, Err(Error::Unavailable(_))));
        first.abort();
        second.abort();
    }
}
