//! Keeps the runtime going beside jobs that block its threads.
//!
//! One thread of tokio's at a time waits for timers and sockets, and hands that over when it next has nothing to do. A
//! job that blocks it takes timers and sockets of the whole process with it, though every other thread is idle: nothing
//! is claimed or written any more, and the lease, whose thread is its own, stands for ever. A task from outside wakes
//! another thread, which takes over.

use std::{
    io,
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    time::Duration,
};

use tokio::runtime::Handle;

/// What a blocked thread costs the others at most, and 20 tasks a second when there is none.
const EVERY: Duration = Duration::from_millis(50);

/// Keeps the pulse of this runtime until the answer is dropped.
///
/// When every thread has been blocked for `limit`, longer than any job may run, no deadline can be enforced any more and
/// nothing held here would ever end: the process ends, and its jobs run elsewhere once its lease is over.
///
/// # Errors
/// When the thread cannot be started.
pub fn keep(runtime: Handle, limit: Duration) -> io::Result<Sender<()>> {
    let (kept, dropped) = channel();
    std::thread::Builder::new().name("pulse".into()).spawn(move || {
        let mut beat = runtime.spawn(async {});
        // Counted in our own turns: when the whole process stood still, so did we.
        let mut silent = Duration::ZERO;
        while dropped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
            if beat.is_finished() {
                beat = runtime.spawn(async {});
                silent = Duration::ZERO;
                continue;
            }
            silent += EVERY;
            if silent > limit {
                tracing::error!(?limit, "every thread is blocked by jobs beyond their deadline; ending the process");
                // What is printed on another thread gets its time to be printed.
                std::thread::sleep(EVERY);
                std::process::abort();
            }
        }
    })?;
    Ok(kept)
}
