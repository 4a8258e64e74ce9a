//! Graceful shutdown in two steps: drain, then stop the work that still runs.

use std::time::Duration;

use futures_util::future::select_all;
use tokio::signal::unix::{Signal, SignalKind, signal};
pub use tokio_util::sync::CancellationToken;

/// How long running jobs and requests may continue after the signal. A whole stop takes at most 30 s.
pub const GRACE: Duration = Duration::from_secs(25);

/// The two shutdown signals of a process.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Cancelled first: accept no new work, and finish the running work.
    pub drain: CancellationToken,
    /// Cancelled last: return running jobs to the queue, and abort open requests.
    pub now: CancellationToken,
}

impl Shutdown {
    /// Shuts down on SIGTERM, SIGINT (Ctrl-C) or SIGHUP (closed terminal). The first signal cancels `drain`; a second one,
    /// or the end of `grace`, cancels `now`. A process started with SIGHUP ignored, as by `nohup`, keeps ignoring it.
    ///
    /// # Errors
    /// When a signal handler cannot be installed.
    pub fn on_signals(grace: Duration) -> std::io::Result<Self> {
        let shutdown = Self::default();
        let mut kinds = vec![SignalKind::terminate(), SignalKind::interrupt()];
        if !ignores_hangup() {
            kinds.push(SignalKind::hangup());
        }
        let mut signals = kinds.into_iter().map(signal).collect::<std::io::Result<Vec<Signal>>>()?;
        let stop = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! { () = next_signal(&mut signals) => {} () = stop.drain.cancelled() => {} }
            tracing::info!("draining: no new work is accepted; press Ctrl-C again to stop at once");
            stop.drain.cancel();
            tokio::select! { () = next_signal(&mut signals) => {} () = tokio::time::sleep(grace) => {} }
            stop.now.cancel();
        });
        Ok(shutdown)
    }
}

/// Waits for the next signal.
async fn next_signal(signals: &mut [Signal]) {
    select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
}

/// Whether SIGHUP was ignored when this process started. A handler for it would replace that setting.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    // Signal n is bit n - 1.
    mask & 1 << (nix::libc::SIGHUP - 1) != 0
}
