//! Single flight: concurrent requests for the same key share one load.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex},
};

use futures_util::{FutureExt, future::BoxFuture, future::Shared};
use tokio::task;

use crate::mutex::lock;

/// The running loads by key, each with the id of its task.
type Running<K, T> = Arc<Mutex<HashMap<K, (task::Id, Shared<BoxFuture<'static, Option<T>>>)>>>;

/// Loads by key; concurrent requests for a key share one.
pub struct SingleFlight<K: Hash + Eq + Clone, T: Clone> {
    running: Running<K, T>,
}

impl<K: Hash + Eq + Clone, T: Clone> Default for SingleFlight<K, T> {
    /// No load is running.
    fn default() -> Self {
        Self { running: Arc::default() }
    }
}

impl<K: Hash + Eq + Clone + Send + 'static, T: Clone + Send + Sync + 'static> SingleFlight<K, T> {
    /// Waits for the running load of `id`, or starts `load`. The load runs in its own task: the caller that started it
    /// may be cancelled, and the others still get the result. Returns `None` when the load panicked.
    pub async fn join<F>(&self, id: K, load: impl FnOnce() -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let shared = {
            // The task cannot remove its load before this is released, so the load is listed by then.
            let mut running = lock(&self.running);
            if let Some((_, shared)) = running.get(&id) {
                shared.clone()
            } else {
                let (load, list, key) = (load(), self.running.clone(), id.clone());
                let task = tokio::spawn(async move {
                    let _remove_when_done = RemoveWhenDone { running: list, id: key, task: task::id() };
                    load.await
                });
                let task_id = task.id();
                let shared = task.map(Result::ok).boxed().shared();
                running.insert(id, (task_id, shared.clone()));
                shared
            }
        };
        shared.await
    }

    /// Makes the next caller start a new load, because the running one may have read data that has just changed.
    pub fn forget(&self, id: &K) {
        lock(&self.running).remove(id);
    }
}

/// Removes a load from the list when it ends, also when it panics.
struct RemoveWhenDone<K: Hash + Eq, T: Clone> {
    running: Running<K, T>,
    id: K,
    task: task::Id,
}

impl<K: Hash + Eq, T: Clone> Drop for RemoveWhenDone<K, T> {
    fn drop(&mut self) {
        let mut running = lock(&self.running);
        // After `forget`, another load may run under this key.
        if running.get(&self.id).is_some_and(|(task, _)| *task == self.task) {
            running.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn all_callers_share_one_load_even_when_the_first_is_cancelled() {
        let (single_flight, loads, gate) =
            (Arc::new(SingleFlight::default()), Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let join = || {
            let (single_flight, loads, gate) = (single_flight.clone(), loads.clone(), gate.clone());
            tokio::spawn(async move {
                single_flight
                    .join(1, || async move {
                        loads.fetch_add(1, Ordering::Relaxed);
                        gate.notified().await;
                        7
                    })
                    .await
            })
        };
        let first = join();
        tokio::task::yield_now().await;
        let rest: Vec<_> = (0..50).map(|_| join()).collect();
        tokio::task::yield_now().await;
        first.abort();
        gate.notify_one();
        for task in rest {
            assert_eq!(task.await.ok().flatten(), Some(7));
        }
        assert_eq!(loads.load(Ordering::Relaxed), 1);
        // A later caller starts a new load. So does a caller after `forget`, while the old load still runs.
        gate.notify_one();
        assert_eq!(join().await.ok().flatten(), Some(7));
        let old = join();
        tokio::task::yield_now().await;
        single_flight.forget(&1);
        let new = join();
        tokio::task::yield_now().await;
        gate.notify_waiters();
        assert_eq!((old.await.ok().flatten(), new.await.ok().flatten()), (Some(7), Some(7)));
        assert_eq!(loads.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn a_panic_returns_none_and_the_next_load_runs() {
        let single_flight = SingleFlight::<i32, u8>::default();
        assert_eq!(single_flight.join(1, || async { panic!("of the test") }).await, None);
        assert_eq!(single_flight.join(1, || async { 1 }).await, Some(1));
    }
}
