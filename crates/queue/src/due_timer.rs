//! A timer for due times, more exact than a timer of tokio.

use std::{
    thread,
    time::{Duration, Instant},
};

use tokio::{task::spawn_blocking, time};

/// The most that a timer of tokio is late. It rounds twice up to whole milliseconds, so it is late by 1 ms on average.
const LATENESS: Duration = Duration::from_millis(2);

/// Waits until `due`. It ends about 0.1 ms after it, and never before it.
pub(crate) async fn sleep_until(due: Instant) {
    if let Some(early) = due.checked_sub(LATENESS)
        && early > Instant::now()
    {
        time::sleep_until(early.into()).await;
    }
    if due <= Instant::now() {
        return;
    }
    // A thread sleeps exactly. Dropping this future does not end its sleep, which is short. The other timer bounds the wait
    // while no thread is free.
    let exact = spawn_blocking(move || thread::sleep(due.saturating_duration_since(Instant::now())));
    tokio::select! { _ = exact => {} () = time::sleep_until(due.into()) => {} }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_never_ends_early() {
        for micros in [0, 1, 700, 1_500, 2_300, 5_900] {
            let due = Instant::now() + Duration::from_micros(micros);
            sleep_until(due).await;
            assert!(Instant::now() >= due, "{micros}");
        }
    }
}
