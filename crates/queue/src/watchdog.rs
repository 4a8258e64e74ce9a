//! A watchdog thread: keeps timers and sockets alive while jobs block threads of the runtime, and ends a blocked
//! process.
//!
//! In tokio one thread at a time drives timers and sockets. It passes that role on when it next becomes idle. A job
//! that blocks this thread stops the timers and sockets of the whole process, even if all other threads are idle. Then
//! no job is claimed and no result is written, but the lease never expires, because the heartbeat has its own thread. A
//! task spawned from outside wakes another thread, which takes over.

use std::{
    io,
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    time::Duration,
};

use tokio::runtime::Handle;

/// The time between two probes. Timers and sockets stall behind a blocked thread for at most this long. It costs 20 tasks a
/// second.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// Starts the watchdog of this runtime. It runs until the returned sender is dropped.
///
/// When all threads have been blocked for `limit()`, longer than any job in flight may run, no deadline can be enforced
/// any more. The jobs would never end, so the watchdog aborts the process, and they run elsewhere after the lease. Without a
/// job in flight there is no limit.
///
/// # Errors
/// When the thread cannot be started.
pub(crate) fn start(runtime: Handle, limit: impl Fn() -> Option<Duration> + Send + 'static) -> io::Result<Sender<()>> {
    let (handle, dropped) = channel();
    std::thread::Builder::new().name("watchdog".into()).spawn(move || {
        let mut probe = runtime.spawn(async {});
        // Counts our own wake-ups, because a suspended process suspends this thread too.
        let mut blocked = Duration::ZERO;
        while dropped.recv_timeout(PROBE_INTERVAL) == Err(RecvTimeoutError::Timeout) {
            if probe.is_finished() {
                probe = runtime.spawn(async {});
                blocked = Duration::ZERO;
                continue;
            }
            blocked += PROBE_INTERVAL;
            if let Some(limit) = limit().filter(|limit| blocked > *limit) {
                tracing::error!(?limit, "jobs block every thread beyond their deadline; aborting the process");
                // Another thread writes the log; it gets time for this line.
                std::thread::sleep(PROBE_INTERVAL);
                std::process::abort();
            }
        }
    })?;
    Ok(handle)
}
