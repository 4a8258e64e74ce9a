//! The two steps of a stop: drain, then give back what is still running.

use std::time::Duration;

use futures_util::future::select_all;
use tokio::signal::unix::{Signal, SignalKind, signal};
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
    /// Stops on SIGTERM, SIGINT (Ctrl-C) or SIGHUP (the terminal was closed): the first drains, and the end of `grace` or a
    /// second signal gives back. A process that was started to outlive its terminal, as by `nohup`, goes on at SIGHUP.
    ///
    /// # Errors
    /// When the signals cannot be listened to.
    pub fn on_signals(grace: Duration) -> std::io::Result<Self> {
        let shutdown = Self::default();
        let mut kinds = vec![SignalKind::terminate(), SignalKind::interrupt()];
        if !ignores_hangup() {
            kinds.push(SignalKind::hangup());
        }
        let mut signals = kinds.into_iter().map(signal).collect::<std::io::Result<Vec<Signal>>>()?;
        let stop = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! { () = any(&mut signals) => {} () = stop.drain.cancelled() => {} }
            tracing::info!("draining: no new work; press Ctrl-C again to stop at once");
            stop.drain.cancel();
            tokio::select! { () = any(&mut signals) => {} () = tokio::time::sleep(grace) => {} }
            stop.now.cancel();
        });
        Ok(shutdown)
    }
}

/// Waits for the next of these signals.
async fn any(signals: &mut [Signal]) {
    select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
}

/// Whether SIGHUP was ignored when this process was started. Listening to it would end that.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    // Signal n is bit n - 1.
    mask & 1 << (nix::libc::SIGHUP - 1) != 0
}
