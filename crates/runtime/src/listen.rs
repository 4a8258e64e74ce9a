//! One LISTEN connection that comes back by itself, and tells when notifications may have been missed.

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
    db::{self, Database, with_time_limit},
    pooler::Pooler,
    settings,
    writable::{self, READ_ONLY},
};
use crate::error::causes;

/// 1 while all listeners of this process hear, 0 while one of them has to poll.
const UP: &str = "millrace_listener_up";
/// Listeners of this process that hear nothing at the moment.
static DEAF: AtomicUsize = AtomicUsize::new(0);

/// Says what the metric means.
pub fn describe() {
    describe_gauge!(UP, "1 while notifications are heard, 0 while only polling finds what is new.");
    gauge!(UP).set(0.0);
}

/// One listener that hears nothing, for as long as this lives.
struct Disconnected;

impl Disconnected {
    fn new() -> Self {
        DEAF.fetch_add(1, Ordering::SeqCst);
        gauge!(UP).set(0.0);
        Self
    }
}

impl Drop for Disconnected {
    fn drop(&mut self) {
        if DEAF.fetch_sub(1, Ordering::SeqCst) == 1 {
            gauge!(UP).set(1.0);
        }
    }
}

/// Between two attempts to listen again: short beside the sweeps that bridge the gap, long beside a reconnect storm.
const RETRY: Duration = Duration::from_millis(500);

/// To connect takes no longer, or it is tried again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After so long a silence a listener makes sure that its server is still there, and after a failover that it is the
/// primary: a connection that died without a RST is as silent as one without news.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// What a listener reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenEvent {
    /// Connected from now on; anything before this may have been missed, so look for yourself.
    Connected,
    /// Nothing is heard until [`ListenEvent::Connected`] comes again.
    Disconnected,
    /// The payload of one notification.
    Notification(String),
}

/// Listens on `channel` until `stop`, handing everything to `hear`, which must not block.
pub async fn listen(database: &Database, channel: &str, stop: &CancellationToken, mut hear: impl FnMut(ListenEvent)) {
    if !database.has_sessions() {
        let _deaf = Disconnected::new();
        tracing::info!(channel, "no notifications through a pooler; polling instead");
        return stop.cancelled().await;
    }
    while !stop.is_cancelled() {
        let deaf = Disconnected::new();
        // A pool of its own: a listener must not wait behind, or take a place from, those who do the work. One for each
        // attempt: over a connection that died without a RST, a listener keeps its place until TCP gives up.
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(CONNECT_TIMEOUT);
        let pool = pool.connect_lazy_with(database.session("listener"));
        let ended = tokio::select! {
            ended = listen_once(&pool, channel, &mut hear, deaf) => ended,
            () = stop.cancelled() => return db::close(&pool).await,
        };
        gauge!(UP).set(0.0);
        hear(ListenEvent::Disconnected);
        if let Err(error) = ended {
            tracing::warn!(channel, error = causes(&error), "listener lost; polling until it is back");
        }
        db::close(&pool).await;
        tokio::select! { () = tokio::time::sleep(RETRY) => {} () = stop.cancelled() => {} }
    }
}

async fn listen_once(
    pool: &sqlx::PgPool,
    channel: &str,
    hear: &mut impl FnMut(ListenEvent),
    deaf: Disconnected,
) -> sqlx::Result<()> {
    let mut connected = Instant::now();
    let mut listener = with_time_limit(connect(pool, channel)).await?;
    drop(deaf);
    hear(ListenEvent::Connected);
    loop {
        match timeout(CHECK_EVERY, listener.try_recv()).await {
            Ok(received) => match received? {
                Some(notification) => hear(ListenEvent::Notification(notification.payload().to_owned())),
                None => return Ok(()),
            },
            Err(_silent) => {
                let session = listener.acquire().await?;
                if writable::failed_over_since(connected) {
                    only_primary(settings::probe(session).await?)?;
                    connected = Instant::now();
                } else {
                    // As good against a dead connection, and no statement: a system at rest asks nearly nothing.
                    settings::ping(session).await?;
                }
            }
        }
    }
}

async fn connect(pool: &sqlx::PgPool, channel: &str) -> sqlx::Result<PgListener> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.ignore_pool_close_event(true);
    // A silent reconnect would hide the gap.
    listener.eager_reconnect(false);
    only_primary(settings::open(listener.acquire().await?, Pooler::None).await?)?;
    listener.listen(channel).await?;
    Ok(listener)
}

/// A server that only reads announces nothing: what it knows was announced by its primary.
fn only_primary(read_only: bool) -> sqlx::Result<()> {
    if read_only { Err(sqlx::Error::Io(std::io::Error::other(READ_ONLY))) } else { Ok(()) }
}
