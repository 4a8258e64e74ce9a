//! Server-sent events: a page that is the same for everyone, rendered every 2 s for all who watch it.
//!
//! However many watch a page, one task of the process reads one snapshot. Without a watcher it ends. A client that reads
//! slowly misses snapshots: only the newest one is kept.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use askama::Template;
use futures_util::{
    StreamExt,
    future::{BoxFuture, ready},
    stream::{self, Stream},
};
use hyper::body::Bytes;
use runtime::mutex::lock;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// Renders one snapshot as HTML.
pub(super) type Render = Arc<dyn Fn() -> BoxFuture<'static, String> + Send + Sync>;

/// The time between two snapshots.
const EVERY: Duration = Duration::from_secs(2);
/// The first lines of every stream: how long a browser waits before it connects again, in milliseconds.
const START: &str = "retry: 2000\n\n";

/// The renderer of the templates that `read` returns, one for each snapshot.
pub(super) fn renderer<F>(read: impl Fn() -> F + Send + Sync + 'static) -> Render
where
    F: Future<Output: Template> + Send + 'static,
{
    Arc::new(move || {
        let template = read();
        // A template fails only because of a fault in it. The page then shows the fault.
        Box::pin(async move { template.await.render().unwrap_or_default() })
    })
}

/// The snapshots of one page in this process. Clones share them.
#[derive(Clone)]
pub(super) struct Snapshots(Arc<Shared>);

struct Shared {
    render: Render,
    /// The newest snapshot as an event.
    newest: watch::Sender<Bytes>,
    /// Whether the task runs.
    is_polling: Mutex<bool>,
    /// Cancelled when the process starts to drain.
    draining: CancellationToken,
}

impl Snapshots {
    /// Creates it without a task: the first watcher starts one.
    pub(super) fn new(render: Render, draining: CancellationToken) -> Self {
        let newest = watch::Sender::new(Bytes::new());
        Self(Arc::new(Shared { render, newest, is_polling: Mutex::new(false), draining }))
    }

    /// The events of one watcher: each snapshot from now on. The stream ends at `end`, and when the process drains.
    pub(super) fn watch(&self, end: Instant) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
        let (watcher, draining) = (self.subscribe(), self.0.draining.clone());
        let events = stream::unfold((watcher, draining), move |(mut watcher, draining)| async move {
            tokio::select! {
                changed = watcher.changed() => changed.ok()?,
                () = draining.cancelled() => return None,
                () = sleep_until(end) => return None,
            }
            let event = watcher.borrow_and_update().clone();
            Some((Ok(event), (watcher, draining)))
        });
        stream::once(ready(Ok(Bytes::from_static(START.as_bytes())))).chain(events)
    }

    fn subscribe(&self) -> watch::Receiver<Bytes> {
        let mut is_polling = lock(&self.0.is_polling);
        let watcher = self.0.newest.subscribe();
        if !*is_polling {
            *is_polling = true;
            tokio::spawn(self.clone().poll());
        }
        watcher
    }

    /// Reads snapshots while there are watchers and the process does not drain.
    async fn poll(self) {
        let shared = &*self.0;
        let mut number = 0_u64;
        while self.is_watched() {
            number += 1;
            let next = Instant::now() + EVERY;
            shared.newest.send_replace(event(number, &(shared.render)().await));
            tokio::select! {
                () = sleep_until(next) => {}
                () = shared.draining.cancelled() => {}
            }
        }
    }

    /// Whether the task goes on. A watcher that comes later starts a new one.
    fn is_watched(&self) -> bool {
        let mut is_polling = lock(&self.0.is_polling);
        *is_polling = self.0.newest.receiver_count() > 0 && !self.0.draining.is_cancelled();
        *is_polling
    }
}

/// An event whose data is this HTML: each line has its own prefix.
fn event(number: u64, html: &str) -> Bytes {
    let lines: String = html.lines().map(|line| format!("data: {line}\n")).collect();
    Bytes::from(format!("id: {number}\n{lines}\n"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use tokio::time::sleep;

    use super::*;

    /// Snapshots that count how often they are rendered.
    fn counted() -> (Snapshots, Arc<AtomicU64>, CancellationToken) {
        let (count, draining) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let rendered = count.clone();
        let render: Render = Arc::new(move || {
            let number = rendered.fetch_add(1, Relaxed) + 1;
            Box::pin(async move { format!("<p>\n{number}</p>") })
        });
        (Snapshots::new(render, draining.clone()), count, draining)
    }

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    async fn text(events: &mut (impl Stream<Item = std::io::Result<Bytes>> + Unpin)) -> Option<String> {
        events.next().await.map(|event| String::from_utf8_lossy(&event.unwrap_or_default()).into_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn many_watchers_cost_as_much_as_one_and_none_cost_nothing() {
        let (snapshots, count, _) = counted();
        sleep(EVERY * 10).await;
        assert_eq!(count.load(Relaxed), 0, "no watcher yet");
        let mut rendered = Vec::new();
        for watchers in [1, 20] {
            let before = count.load(Relaxed);
            let watching: Vec<_> = (0..watchers).map(|_| snapshots.watch(far())).collect();
            sleep(EVERY * 10).await;
            drop(watching);
            sleep(EVERY * 10).await;
            rendered.push(count.load(Relaxed) - before);
        }
        assert_eq!(rendered[0], rendered[1]);
        assert!((10..=11).contains(&rendered[0]), "{rendered:?} in the time of ten, then none");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_watcher_misses_snapshots() {
        let (snapshots, ..) = counted();
        let mut events = Box::pin(snapshots.watch(far()));
        assert_eq!(text(&mut events).await.as_deref(), Some(START));
        assert_eq!(text(&mut events).await.as_deref(), Some("id: 1\ndata: <p>\ndata: 1</p>\n\n"));
        sleep(EVERY * 5 + EVERY / 2).await;
        assert_eq!(text(&mut events).await.as_deref(), Some("id: 6\ndata: <p>\ndata: 6</p>\n\n"));
        assert_eq!(text(&mut events).await.as_deref(), Some("id: 7\ndata: <p>\ndata: 7</p>\n\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_with_its_session_and_with_the_process() {
        let (snapshots, count, draining) = counted();
        let mut short = Box::pin(snapshots.watch(Instant::now() + EVERY / 2).skip(2));
        assert_eq!(text(&mut short).await, None);
        let mut events = Box::pin(snapshots.watch(far()).skip(2));
        let begun = Instant::now();
        draining.cancel();
        assert_eq!((text(&mut events).await, begun.elapsed()), (None, Duration::ZERO));
        let before = count.load(Relaxed);
        sleep(EVERY * 3).await;
        assert!(count.load(Relaxed) <= before + 1, "no polling while the process drains");
    }
}
