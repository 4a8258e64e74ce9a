//! One notification stream for everybody in this process who waits for a transaction to be settled.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::store;
use crate::boot::{
    db::{Database, answered},
    listen::{Heard, listen},
};

/// The payload is a list of ids, so that a batch of settlements is a handful of notifications.
pub const CHANNEL: &str = "millrace_settled";
/// PostgreSQL allows a payload below 8,000 bytes; an id takes 33 with its comma.
const IDS_PER_PAYLOAD: usize = 200;
/// What was not announced, or not heard, is found after this long: one statement for all who wait.
const LOOK: Duration = Duration::from_secs(1);

/// Writes ids as notification payloads.
pub fn payloads(ids: &[Uuid]) -> Vec<String> {
    let text = |ids: &[Uuid]| ids.iter().map(|id| id.simple().to_string()).collect::<Vec<_>>().join(",");
    ids.chunks(IDS_PER_PAYLOAD).map(text).collect()
}

/// Who waits for what.
#[derive(Default)]
pub struct Watch(Mutex<HashMap<Uuid, Waiters>>);

struct Waiters {
    settled: Arc<Notify>,
    count: usize,
}

/// Somebody's wait for one transaction; it ends with the value.
pub struct Interest {
    id: Uuid,
    settled: Arc<Notify>,
    watch: Arc<Watch>,
}

impl Watch {
    fn waiting(&self) -> MutexGuard<'_, HashMap<Uuid, Waiters>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers somebody who waits.
    pub fn interest(self: &Arc<Self>, id: Uuid) -> Interest {
        let mut waiting = self.waiting();
        let waiters = waiting.entry(id).or_insert_with(|| Waiters { settled: Arc::new(Notify::new()), count: 0 });
        waiters.count += 1;
        Interest { id, settled: waiters.settled.clone(), watch: self.clone() }
    }

    /// Listens and looks until `stop`.
    pub async fn run(&self, database: &Database, pool: &PgPool, stop: &CancellationToken) {
        let look = Notify::new();
        let listening = listen(database, CHANNEL, stop, |heard| match heard {
            Heard::Payload(ids) => self.wake(ids.split(',').filter_map(|id| Uuid::try_parse(id).ok())),
            Heard::Listening => look.notify_one(),
            Heard::Deaf => {}
        });
        let looking = async {
            while !stop.is_cancelled() {
                let ids: Vec<Uuid> = self.waiting().keys().copied().collect();
                if !ids.is_empty() {
                    let settled = tokio::select! {
                        settled = answered(store::settled(pool, &ids)) => settled,
                        () = stop.cancelled() => return,
                    };
                    match settled {
                        Ok(settled) => self.wake(settled.into_iter()),
                        Err(error) => tracing::debug!(%error, "could not look for settled transactions"),
                    }
                }
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    () = look.notified() => {}
                    () = stop.cancelled() => {}
                }
            }
        };
        tokio::join!(listening, looking);
    }

    fn wake(&self, ids: impl Iterator<Item = Uuid>) {
        let waiting = self.waiting();
        for waiters in ids.filter_map(|id| waiting.get(&id)) {
            // A permit for a waiter that has registered but not yet begun to wait; each waiter passes it on.
            waiters.settled.notify_one();
        }
    }
}

impl Interest {
    /// Waits until the transaction is settled.
    pub async fn settled(&self) {
        self.settled.notified().await;
        self.settled.notify_one();
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let mut waiting = self.watch.waiting();
        if let Some(waiters) = waiting.get_mut(&self.id) {
            waiters.count -= 1;
            if waiters.count == 0 {
                waiting.remove(&self.id);
            }
        }
    }
}
