//! Settlement listener: one notification stream for all callers in this process that wait for a transaction.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::store;
use runtime::{
    db::{Database, Pool},
    listen::{ListenEvent, listen},
    mutex::lock,
};

/// Between two polls, which find settlements whose notification was lost: one statement for all waiters.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The waiters of this process, by the id of their transaction.
#[derive(Default)]
pub(super) struct SettlementListener(Mutex<HashMap<Uuid, WaiterGroup>>);

/// All waiters for one transaction.
struct WaiterGroup {
    settled: Arc<Notify>,
    count: usize,
}

/// A registered waiter for one transaction; dropping it ends the registration.
pub(super) struct Waiter {
    id: Uuid,
    settled: Arc<Notify>,
    listener: Arc<SettlementListener>,
}

impl SettlementListener {
    /// Registers a waiter for a transaction.
    pub(super) fn register(self: &Arc<Self>, id: Uuid) -> Waiter {
        let mut groups = lock(&self.0);
        let group = groups.entry(id).or_insert_with(|| WaiterGroup { settled: Arc::new(Notify::new()), count: 0 });
        group.count += 1;
        Waiter { id, settled: group.settled.clone(), listener: self.clone() }
    }

    /// Listens for notifications, and polls, until `stop`.
    pub(super) async fn run(&self, database: &Database, pool: &Pool, stop: &CancellationToken) {
        let poll_now = Notify::new();
        let listening = listen(database, store::SETTLED_CHANNEL, stop, |event| match event {
            ListenEvent::Notification(ids) => self.wake(ids.split(',').filter_map(|id| Uuid::try_parse(id).ok())),
            ListenEvent::Connected => poll_now.notify_one(),
            ListenEvent::Disconnected => {}
        });
        let polling = async {
            while !stop.is_cancelled() {
                let ids: Vec<Uuid> = lock(&self.0).keys().copied().collect();
                if !ids.is_empty() {
                    let look = store::find_settled(pool, &ids);
                    let Some(settled) = stop.run_until_cancelled(look).await else { return };
                    match settled {
                        Ok(settled) => self.wake(settled.into_iter()),
                        Err(error) => tracing::debug!(%error, "could not poll for settled transactions"),
                    }
                }
                tokio::select! {
                    () = tokio::time::sleep(POLL_INTERVAL) => {}
                    () = poll_now.notified() => {}
                    () = stop.cancelled() => {}
                }
            }
        };
        tokio::join!(listening, polling);
    }

    fn wake(&self, ids: impl Iterator<Item = Uuid>) {
        let groups = lock(&self.0);
        for group in ids.filter_map(|id| groups.get(&id)) {
            // Stores a permit, also for a waiter that is registered but does not wait yet. Each waiter passes it on.
            group.settled.notify_one();
        }
    }
}

impl Waiter {
    /// Waits until the transaction is settled.
    pub(super) async fn wait(&self) {
        self.settled.notified().await;
        self.settled.notify_one();
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut groups = lock(&self.listener.0);
        if let Some(group) = groups.get_mut(&self.id) {
            group.count -= 1;
            if group.count == 0 {
                groups.remove(&self.id);
            }
        }
    }
}
