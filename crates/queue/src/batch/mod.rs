//! Batches concurrent calls into one statement: while one batch is being written, the next one fills.
//!
//! No call waits for a timer. An idle writer writes a call at once, and under load the batches grow by themselves.

mod help;

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio::sync::{Mutex, mpsc, oneshot};

use self::help::Help;
use super::load::Load;
use runtime::{
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
    load: Option<Arc<Load>>,
    help: Arc<Help>,
}

impl<T, R> Clone for Batch<T, R> {
    fn clone(&self) -> Self {
        Self { calls: self.calls.clone(), load: self.load.clone(), help: self.help.clone() }
    }
}

/// How many calls wait, and how many are written at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Batches that are written at the same time, at most.
    pub writers: usize,
    /// While fewer calls wait, and the first writer is not slow, it writes them all. Two would share them: each commit would
    /// carry half as many, and cost nearly as much.
    pub further_writers_at: usize,
    /// Items in one batch.
    pub size: usize,
    /// Calls that may wait. Further ones are refused at once instead of after a long wait and a timeout.
    pub waiting: usize,
    /// A call that is likely to wait longer is refused at once; `None` without this limit.
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
        let load = limits.wait.map(|wait| Arc::new(Load::new(limits.size * limits.writers, wait)));
        let from = if limits.writers > 1 { limits.further_writers_at } else { usize::MAX };
        let help = Arc::new(Help::new(from));
        let waiting = Arc::new(Waiting { calls: Mutex::new(receiver), size: limits.size, help: help.clone() });
        for number in 0..limits.writers {
            tokio::spawn(write_batches(waiting.clone(), number == 0, load.clone(), write.clone()));
        }
        Self { calls, load, help }
    }

    /// Writes `item` together with the other waiting items.
    ///
    /// # Errors
    /// The error of the writer. [`Error::Overloaded`] when the item would wait too long, [`Error::Unavailable`] when too many
    /// items wait already.
    pub async fn call(&self, item: T) -> Result<R, Error> {
        if let Some(load) = &self.load {
            load.admit(self.waiting())?;
        }
        self.call_admitted(item).await
    }

    /// Like [`Self::call`], for an item that waits as long as it must: its caller limits how many there are.
    ///
    /// # Errors
    /// The error of the writer, or [`Error::Unavailable`] when too many items wait already.
    pub async fn call_admitted(&self, item: T) -> Result<R, Error> {
        let (response, receiver) = oneshot::channel();
        self.calls
            .try_send(Call { item, caller: TraceContext::current(), response })
            .map_err(|_| Error::Unavailable("too many writes are waiting".into()))?;
        self.help.notify(self.waiting());
        receiver.await.map_err(|_| Error::Unavailable("the process is stopping".into()))?
    }

    /// The number of calls that wait for a writer.
    fn waiting(&self) -> usize {
        self.calls.max_capacity() - self.calls.capacity()
    }
}

/// The calls that wait, as the writers see them.
struct Waiting<T, R> {
    calls: Mutex<mpsc::Receiver<Call<T, R>>>,
    /// The most calls of a batch.
    size: usize,
    help: Arc<Help>,
}

impl<T, R> Waiting<T, R> {
    /// Takes a batch, as soon as a call waits. Returns `None` when every [`Batch`] is dropped.
    async fn take(&self) -> Option<Vec<Call<T, R>>> {
        let mut batch = Vec::new();
        let mut calls = self.calls.lock().await;
        if calls.recv_many(&mut batch, self.size).await == 0 {
            self.help.end();
            return None;
        }
        self.help.notify(calls.len());
        Some(batch)
    }

    /// Takes a batch, as soon as help is needed. Returns `None` when every [`Batch`] is dropped.
    async fn take_to_help(&self) -> Option<Vec<Call<T, R>>> {
        loop {
            self.help.wait().await;
            let mut calls = self.calls.lock().await;
            let is_needed = self.help.is_needed(calls.len());
            let mut batch = Vec::new();
            // Takes what waits, and never waits for more: the first writer does that.
            while is_needed
                && batch.len() < self.size
                && let Ok(call) = calls.try_recv()
            {
                batch.push(call);
            }
            if !batch.is_empty() {
                self.help.notify(calls.len());
                return Some(batch);
            }
            if calls.is_closed() && calls.is_empty() {
                self.help.end();
                return None;
            }
        }
    }
}

/// Writes until every [`Batch`] is dropped. Only the `first` writer waits for single calls.
async fn write_batches<T, R, F, W>(waiting: Arc<Waiting<T, R>>, first: bool, load: Option<Arc<Load>>, write: W)
where
    T: Clone,
    F: Future<Output = Result<Vec<R>, Error>>,
    W: Fn(Vec<T>) -> F,
{
    loop {
        let taken = if first { waiting.take().await } else { waiting.take_to_help().await };
        let Some(mut calls) = taken else { return };
        // The caller has gone: it got no promise, so its item is not written.
        calls.retain(|call| !call.response.is_closed());
        if calls.is_empty() {
            continue;
        }
        let mut parts = vec![calls];
        while let Some(mut part) = parts.pop() {
            let items: Vec<T> = part.iter().map(|call| call.item.clone()).collect();
            let span = Span::batch("batch", part.iter().map(|call| &call.caller));
            let begun = Instant::now();
            let writing = span.attach_to(guarded(write(items)));
            let written = if first { waiting.help.during(writing).await } else { writing.await };
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
    }
}

/// Runs a write with a time limit. A write that hangs or panics fails its callers, and the writer goes on.
async fn guarded<T>(write: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let written = AssertUnwindSafe(with_time_limit(write)).catch_unwind().await;
    written.unwrap_or_else(|_| Err(Error::Internal("a batched write panicked".into())))
}

#[cfg(test)]
mod tests;
