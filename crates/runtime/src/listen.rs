//! Listener on a PostgreSQL channel. It reconnects by itself, and reports when notifications may have been missed.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use metrics::{describe_gauge, gauge};
use sqlx::{
    Acquire,
    postgres::{PgListener, PgPoolOptions},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    db::{self, Database},
    pooler::Pooler,
    settings,
    time_limit::with_time_limit,
    writable::{self, refuse_read_only},
};
use crate::error::{causes, is_logged};

/// The metric: 1 while all listeners of this process are connected, 0 while at least one is not.
const LISTENER_UP: &str = "millrace_listener_up";
/// How many listeners of this process are disconnected.
static DISCONNECTED: AtomicUsize = AtomicUsize::new(0);

/// Registers the metric.
pub fn describe() {
    describe_gauge!(LISTENER_UP, "1 while all listeners receive notifications, 0 while at least one has to poll.");
    gauge!(LISTENER_UP).set(0.0);
}

/// Guard of a disconnected listener: counts it until it is dropped.
struct DisconnectedGuard;

impl DisconnectedGuard {
    fn new() -> Self {
        DISCONNECTED.fetch_add(1, Ordering::SeqCst);
        gauge!(LISTENER_UP).set(0.0);
        Self
    }
}

impl Drop for DisconnectedGuard {
    fn drop(&mut self) {
        if DISCONNECTED.fetch_sub(1, Ordering::SeqCst) == 1 {
            gauge!(LISTENER_UP).set(1.0);
        }
    }
}

/// The pause between two attempts to connect: short compared with the polling interval, but long enough to avoid a
/// reconnect storm.
const RETRY: Duration = Duration::from_millis(500);

/// The limit of one attempt to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a listener waits for a notification before it checks its connection. Without a check, a connection that died
/// without a RST looks like one without notifications. After a failover, the check also finds a replaced primary.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// An event of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenEvent {
    /// Connected from now on. Earlier notifications may have been missed, so the receiver should poll once.
    Connected,
    /// No notifications arrive until the next [`ListenEvent::Connected`].
    Disconnected,
    /// The payload of one notification.
    Notification(String),
}

/// Listens on `channel` until `stop`. Passes each event to `on_event`, which must not block.
pub async fn listen(
    database: &Database,
    channel: &str,
    stop: &CancellationToken,
    mut on_event: impl FnMut(ListenEvent),
) {
    if !database.has_sessions() {
        let _disconnected = DisconnectedGuard::new();
        tracing::info!(channel, "LISTEN does not work through the pooler; polling instead");
        return stop.cancelled().await;
    }
    let mut failures = 0_u32;
    while !stop.is_cancelled() {
        let disconnected = DisconnectedGuard::new();
        // A separate pool: a listener must neither wait for the sessions of other work nor occupy one of them. Each
        // attempt gets a new pool, because a connection that died without a RST keeps its place until TCP gives up.
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(CONNECT_TIMEOUT);
        let pool = pool.connect_lazy_with(database.session_options("listener"));
        let mut on_each = |event: ListenEvent| {
            if event == ListenEvent::Connected {
                failures = 0;
            }
            on_event(event);
        };
        let result = tokio::select! {
            result = listen_once(&pool, channel, &mut on_each, disconnected) => result,
            () = stop.cancelled() => return db::close(&pool).await,
        };
        gauge!(LISTENER_UP).set(0.0);
        on_event(ListenEvent::Disconnected);
        failures = failures.saturating_add(1);
        if let Err(error) = result
            && is_logged(failures)
        {
            let error = causes(&error);
            tracing::warn!(channel, failures, error, "listener disconnected; polling until it reconnects");
        }
        db::close(&pool).await;
        tokio::select! { () = tokio::time::sleep(RETRY) => {} () = stop.cancelled() => {} }
    }
}

async fn listen_once(
    pool: &sqlx::PgPool,
    channel: &str,
    on_event: &mut impl FnMut(ListenEvent),
    disconnected: DisconnectedGuard,
) -> sqlx::Result<()> {
    let mut checked_at = Instant::now();
    let mut listener = with_time_limit(connect(pool, channel)).await?;
    drop(disconnected);
    on_event(ListenEvent::Connected);
    loop {
        match timeout(CHECK_EVERY, listener.try_recv()).await {
            Ok(received) => match received? {
                Some(notification) => on_event(ListenEvent::Notification(notification.payload().to_owned())),
                None => return Ok(()),
            },
            Err(_elapsed) => {
                let session = listener.acquire().await?;
                if writable::failed_over_since(checked_at) {
                    refuse_read_only(settings::probe(session).await?)?;
                    checked_at = Instant::now();
                } else {
                    // A ping finds a dead connection as well and is no statement, so an idle system runs almost none.
                    settings::ping(session).await?;
                }
            }
        }
    }
}

async fn connect(pool: &sqlx::PgPool, channel: &str) -> sqlx::Result<PgListener> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.ignore_pool_close_event(true);
    // sqlx's own reconnect would not report missed notifications.
    listener.eager_reconnect(false);
    refuse_read_only(settings::apply(listener.acquire().await?, Pooler::None, None).await?)?;
    listener.listen(channel).await?;
    Ok(listener)
}
