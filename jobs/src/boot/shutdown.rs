//! The two steps of a stop: drain, then give back what is still running.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
pub use tokio_util::sync::CancellationToken;

/// A whole stop takes at most 30 s; this much of it belongs to running jobs and requests.
pub const GRACE: Duration = Duration::from_secs(25);

/// What a process listens to in order to stop.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Take no new work; finish what runs.
    pub drain: CancellationToken,
    /// Give back what still runs.
    pub now: CancellationToken,
}

impl Shutdown {
    /// Stops on SIGTERM or SIGINT (Ctrl-C): the first drains, and the end of `grace` or a second signal gives back.
    ///
    /// # Errors
    /// When the signals cannot be listened to.
    pub fn on_signals(grace: Duration) -> std::io::Result<Self> {
        let shutdown = Self::default();
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! { _ = term.recv() => {} _ = int.recv() => {} _ = stop.drain.cancelled() => {} }
            tracing::info!("draining: no new work; press Ctrl-C again to stop at once");
            stop.drain.cancel();
            tokio::select! { _ = term.recv() => {} _ = int.recv() => {} () = tokio::time::sleep(grace) => {} }
            stop.now.cancel();
        });
        Ok(shutdown)
    }
}
