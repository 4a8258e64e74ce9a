//! One LISTEN connection that comes back by itself, and tells when notifications may have been missed.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use metrics::{describe_gauge, gauge};
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio_util::sync::CancellationToken;

use super::db::{self, Database};

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
struct Deaf;

impl Deaf {
    fn new() -> Self {
        DEAF.fetch_add(1, Ordering::SeqCst);
        gauge!(UP).set(0.0);
        Self
    }
}

impl Drop for Deaf {
    fn drop(&mut self) {
        if DEAF.fetch_sub(1, Ordering::SeqCst) == 1 {
            gauge!(UP).set(1.0);
        }
    }
}

/// Between two attempts to listen again: short beside the sweeps that bridge the gap, long beside a reconnect storm.
const RETRY: Duration = Duration::from_millis(500);

/// What a listener reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Listening from now on; anything before this may have been missed, so look for yourself.
    Listening,
    /// Nothing is heard until [`Heard::Listening`] comes again.
    Deaf,
    /// The payload of one notification.
    Payload(String),
}

/// Listens on `channel` until `stop`, handing everything to `hear`, which must not block.
pub async fn listen(database: &Database, channel: &str, stop: &CancellationToken, mut hear: impl FnMut(Heard)) {
    if !database.has_sessions() {
        let _deaf = Deaf::new();
        tracing::info!(channel, "no notifications through a pooler; polling instead");
        return stop.cancelled().await;
    }
    // A pool of its own: a listener must not wait behind, or take a place from, those who do the work.
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(database.session("listener"));
    while !stop.is_cancelled() {
        let deaf = Deaf::new();
        let ended = tokio::select! {
            ended = listen_once(&pool, channel, &mut hear, deaf) => ended,
            () = stop.cancelled() => break,
        };
        gauge!(UP).set(0.0);
        hear(Heard::Deaf);
        if let Err(error) = ended {
            tracing::warn!(channel, %error, "listener lost; polling until it is back");
        }
        tokio::select! { () = tokio::time::sleep(RETRY) => {} () = stop.cancelled() => {} }
    }
    db::close(&pool).await;
}

async fn listen_once(pool: &sqlx::PgPool, channel: &str, hear: &mut impl FnMut(Heard), deaf: Deaf) -> sqlx::Result<()> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.ignore_pool_close_event(true);
    // A silent reconnect would hide the gap.
    listener.eager_reconnect(false);
    listener.listen(channel).await?;
    drop(deaf);
    hear(Heard::Listening);
    while let Some(notification) = listener.try_recv().await? {
        hear(Heard::Payload(notification.payload().to_owned()));
    }
    Ok(())
}
