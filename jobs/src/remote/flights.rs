//! Loads under way: whoever wants the same one meanwhile waits for it instead of beginning another.

use std::{
    collections::HashMap,
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{FutureExt, future::BoxFuture, future::Shared};

/// A load and its number.
type Flight<T> = (u64, Shared<BoxFuture<'static, Option<T>>>);

/// Loads by the id of what they load.
pub struct Flights<K: Hash + Eq + Clone, T: Clone> {
    state: Arc<Mutex<State<K, T>>>,
}

struct State<K, T: Clone> {
    under_way: HashMap<K, Flight<T>>,
    next: u64,
}

impl<K: Hash + Eq + Clone, T: Clone> Default for Flights<K, T> {
    /// None is under way.
    fn default() -> Self {
        Self { state: Arc::new(Mutex::new(State { under_way: HashMap::new(), next: 0 })) }
    }
}

impl<K: Hash + Eq + Clone + Send + 'static, T: Clone + Send + Sync + 'static> Flights<K, T> {
    /// Waits for the load of `id` that is under way, or begins `load`. It is a task of its own: whoever began it may
    /// leave, and the others still get their answer. `None` when it panicked.
    pub async fn join<F>(&self, id: K, load: impl FnOnce() -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let flight = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, flight)) = state.under_way.get(&id) {
                flight.clone()
            } else {
                let number = state.next;
                state.next += 1;
                let (load, landing) = (load(), Landing { state: self.state.clone(), id: id.clone(), number });
                let task = tokio::spawn(async move {
                    let _landing = landing;
                    load.await
                });
                let flight = task.map(Result::ok).boxed().shared();
                state.under_way.insert(id, (number, flight.clone()));
                flight
            }
        };
        flight.await
    }

    /// Lets whoever comes from now on begin anew: what is under way may have read what has just changed.
    pub fn forget(&self, id: &K) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).under_way.remove(id);
    }
}

/// Takes a flight off the list when it has ended, whichever way.
struct Landing<K: Hash + Eq, T: Clone> {
    state: Arc<Mutex<State<K, T>>>,
    id: K,
    number: u64,
}

impl<K: Hash + Eq, T: Clone> Drop for Landing<K, T> {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.under_way.get(&self.id).is_some_and(|(number, _)| *number == self.number) {
            state.under_way.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn one_load_answers_all_who_wait_even_when_the_first_leaves() {
        let (flights, loads, gate) =
            (Arc::new(Flights::default()), Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let join = || {
            let (flights, loads, gate) = (flights.clone(), loads.clone(), gate.clone());
            tokio::spawn(async move {
                flights
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
        // The next one begins anew; and so does one after a change, whatever is under way.
        gate.notify_one();
        assert_eq!(join().await.ok().flatten(), Some(7));
        let old = join();
        tokio::task::yield_now().await;
        flights.forget(&1);
        let new = join();
        tokio::task::yield_now().await;
        gate.notify_waiters();
        assert_eq!((old.await.ok().flatten(), new.await.ok().flatten()), (Some(7), Some(7)));
        assert_eq!(loads.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn a_panic_is_nobodys_end() {
        let flights = Flights::<i32, u8>::default();
        assert_eq!(flights.join(1, || async { panic!("of the test") }).await, None);
        assert_eq!(flights.join(1, || async { 1 }).await, Some(1));
    }
}
