//! One LISTEN connection that comes back by itself, and tells when notifications may have been missed.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio_util::sync::CancellationToken;

use super::db::{self, Database};

/// Between two attempts to listen again: short beside the sweeps that bridge the gap, long beside a reconnect storm.
const RETRY: Duration = Duration::from_millis(500);

/// What a listener reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Listening from now on; anything before this may have been missed, so look for yourself.
    Listening,
    /// The payload of one notification.
    Payload(String),
    /// The connection is gone: nothing will be heard until [`Heard::Listening`].
    Lost,
}

/// Listens on `channel` until `stop`, handing everything to `hear`, which must not block.
pub async fn listen(database: &Database, channel: &str, stop: &CancellationToken, mut hear: impl FnMut(Heard)) {
    // A pool of its own: a listener must not wait behind, or take a place from, those who do the work.
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(database.session("listener"));
    while !stop.is_cancelled() {
        let ended = tokio::select! {
            ended = listen_once(&pool, channel, &mut hear) => ended,
            () = stop.cancelled() => break,
        };
        hear(Heard::Lost);
        if let Err(error) = ended {
            tracing::warn!(channel, %error, "listener lost; polling until it is back");
        }
        tokio::select! { () = tokio::time::sleep(RETRY) => {} () = stop.cancelled() => {} }
    }
    db::close(&pool).await;
}

async fn listen_once(pool: &sqlx::PgPool, channel: &str, hear: &mut impl FnMut(Heard)) -> sqlx::Result<()> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.ignore_pool_close_event(true);
    // A silent reconnect would hide the gap.
    listener.eager_reconnect(false);
    listener.listen(channel).await?;
    hear(Heard::Listening);
    while let Some(notification) = listener.try_recv().await? {
        hear(Heard::Payload(notification.payload().to_owned()));
    }
    Ok(())
}
