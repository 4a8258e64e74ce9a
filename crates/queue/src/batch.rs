//! Concurrent calls share one statement: while one batch is being written the next one gathers.
//!
//! No timer: an idle caller goes at once, and a busy system fills its batches by being busy.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use tokio::sync::{Mutex, mpsc, oneshot};

use runtime::{
    db::with_time_limit,
    error::Error,
    telemetry::traces::span::{Span, TraceContext},
};

struct Call<T, R> {
    item: T,
    caller: TraceContext,
    answer: oneshot::Sender<Result<R, Error>>,
}

/// Where calls wait to be written together.
pub struct Batch<T, R>(mpsc::Sender<Call<T, R>>);

impl<T, R> Clone for Batch<T, R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// How much is gathered, and how much is written at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Batches being written at the same time.
    pub writers: usize,
    /// Items in one batch.
    pub size: usize,
    /// Items waiting; a call beyond them is refused at once, which is kinder than a long wait and a timeout.
    pub waiting: usize,
}

impl<T, R> Batch<T, R>
where
    T: Clone + Send + Sync + 'static,
    R: Send + 'static,
{
    /// Starts the writers. `write` returns one result per item, in their order. When it fails for a batch of many, its
    /// halves are written and so on, so that a row which the database refuses fails its own caller only, and costs the
    /// others of 500 at most 18 writes: one for each row took 500.
    pub fn start<F, W>(limits: Limits, write: W) -> Self
    where
        F: Future<Output = Result<Vec<R>, Error>> + Send + 'static,
        W: Fn(Vec<T>) -> F + Clone + Send + Sync + 'static,
    {
        let (sender, receiver) = mpsc::channel(limits.waiting);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..limits.writers {
            tokio::spawn(write_batches(receiver.clone(), limits.size, write.clone()));
        }
        Self(sender)
    }

    /// Has `item` written with whatever else is waiting.
    ///
    /// # Errors
    /// What the writer with_time_limit, or [`Error::Unavailable`] when too much is waiting already.
    pub async fn call(&self, item: T) -> Result<R, Error> {
        let (answer, with_time_limit) = oneshot::channel();
        self.0
            .try_send(Call { item, caller: TraceContext::current(), answer })
            .map_err(|_| Error::Unavailable("too much waits to be written".into()))?;
        with_time_limit.await.map_err(|_| Error::Unavailable("stopping".into()))?
    }
}

/// Writes until every [`Batch`] is dropped. A writer that gathers holds the lock; the others wait for it or write.
async fn write_batches<T, R, F, W>(receiver: Arc<Mutex<mpsc::Receiver<Call<T, R>>>>, size: usize, write: W)
where
    T: Clone,
    F: Future<Output = Result<Vec<R>, Error>>,
    W: Fn(Vec<T>) -> F,
{
    loop {
        let mut calls = Vec::new();
        if receiver.lock().await.recv_many(&mut calls, size).await == 0 {
            return;
        }
        // Nobody waits for the answer any more: nothing was promised, so nothing is written.
        calls.retain(|call| !call.answer.is_closed());
        if calls.is_empty() {
            continue;
        }
        let mut parts = vec![calls];
        while let Some(mut part) = parts.pop() {
            let items: Vec<T> = part.iter().map(|call| call.item.clone()).collect();
            let span = Span::batch("batch", part.iter().map(|call| &call.caller));
            let written = span.attach_to(guarded(write(items))).await;
            if written.is_err() {
                span.record_error("batch");
            }
            drop(span);
            match written {
                Ok(results) => {
                    for (call, result) in part.into_iter().zip(results) {
                        let _ = call.answer.send(Ok(result));
                    }
                }
                Err(Error::Internal(_)) if part.len() > 1 => {
                    // The first half is written next.
                    parts.push(part.split_off(part.len() / 2));
                    parts.push(part);
                }
                Err(error) => {
                    for call in part {
                        let _ = call.answer.send(Err(error.clone()));
                    }
                }
            }
        }
    }
}

/// A write that hangs or panics fails its callers, and leaves the writer to the next ones.
async fn guarded<T>(write: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let written = AssertUnwindSafe(with_time_limit(write)).catch_unwind().await;
    written.unwrap_or_else(|_| Err(Error::Internal("a batched write panicked".into())))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as Log;

    use super::*;

    const LIMITS: Limits = Limits { writers: 1, size: 100, waiting: 1000 };

    #[tokio::test]
    async fn gathers_what_comes_while_it_writes() {
        let batches = Arc::new(Log::new(Vec::new()));
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let (log, held) = (batches.clone(), gate.clone());
        let batch = Batch::start(LIMITS, move |items: Vec<u32>| {
            let (log, held) = (log.clone(), held.clone());
            async move {
                held.acquire().await.map_err(|_| Error::Internal("closed".into()))?.forget();
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
        assert!(batches.lock().is_ok_and(|log| log.len() <= 2), "two writes were let through");
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
    async fn of_a_full_batch_a_refused_row_costs_the_others_few_writes() {
        let writes = Arc::new(Log::new(Vec::new()));
        let log = writes.clone();
        let batch = Batch::start(Limits { writers: 1, size: 500, waiting: 1000 }, move |items: Vec<u32>| {
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
    async fn a_panic_fails_its_callers_and_not_the_writer() {
        let batch = Batch::start(LIMITS, |items: Vec<u32>| async move {
            assert!(!items.contains(&1), "refused loudly");
            Ok(items)
        });
        assert!(matches!(batch.call(1).await, Err(Error::Internal(_))));
        assert_eq!(batch.call(2).await.ok(), Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever_when_the_database_hangs() {
        let batch = Batch::start(LIMITS, |_: Vec<u32>| std::future::pending::<Result<Vec<u32>, Error>>());
        assert!(matches!(batch.call(1).await, Err(Error::Unavailable(_))));
        assert!(matches!(batch.call(2).await, Err(Error::Unavailable(_))), "the writer goes on");
    }

    #[tokio::test]
    async fn refuses_at_once_when_too_much_waits() {
        // The one writer never gets past its first item; the second waits, and the third is too much.
        let limits = Limits { writers: 1, size: 1, waiting: 1 };
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
        while batch.0.capacity() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(batch.call(3).await, Err(Error::Unavailable(_))));
        first.abort();
        second.abort();
    }
}
