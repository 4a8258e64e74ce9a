//! The outside world: a processor of transactions, and the place where jobs report what they did. It runs in this process.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use poem::{
    EndpointExt as _, Request, Route, Server, handler, http::StatusCode, listener::TcpAcceptor, post, web::Data,
};
use runtime::mutex::lock;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{
    history::{Event, History},
    task::FAIL,
};

/// A running processor. It stops when this is dropped.
pub(crate) struct Processor {
    /// `http://127.0.0.1:PORT`
    pub url: String,
    state: Arc<State>,
    server: JoinHandle<()>,
}

/// What becomes of a run of a task that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// It goes on.
    GoOn,
    /// It fails.
    Fail,
    /// It waits for another order.
    Hold,
}

struct State {
    history: Arc<History>,
    delay_ms: AtomicU64,
    /// The orders for the runs of tasks: the first run has number 1. Later ones get the last order.
    orders: watch::Sender<Vec<Order>>,
    /// The runs of tasks that have begun.
    started: Mutex<BTreeSet<(String, i32)>>,
    /// The runs of limited jobs that are at work, by process.
    at_work: Mutex<BTreeSet<(u32, String, i32)>>,
}

impl Processor {
    /// Starts a processor that accepts every transaction at once.
    ///
    /// # Errors
    /// When no port can be bound.
    pub(crate) async fn start(history: Arc<History>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let orders = watch::Sender::new(vec![Order::GoOn]);
        let state = Arc::new(State {
            history,
            delay_ms: AtomicU64::new(0),
            orders,
            started: Mutex::default(),
            at_work: Mutex::default(),
        });
        let routes = Route::new()
            .at("/charge", post(charge))
            .at("/fired", post(fired))
            .at("/started", post(started))
            .at("/failed", post(failed))
            .at("/ended", post(ended))
            .at("/entered", post(entered))
            .at("/left", post(left))
            .data(state.clone());
        let server = Server::new_with_acceptor(TcpAcceptor::from_tokio(listener)?).run(routes);
        // It ends with the task.
        let server = tokio::spawn(async move { drop(server.await) });
        Ok(Self { url, state, server })
    }

    /// Sets how long further calls take.
    pub(crate) fn set_delay(&self, delay: Duration) {
        self.state.delay_ms.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Sets what becomes of the runs of tasks: the first order is for the first run, the last one for all later ones.
    pub(crate) fn order(&self, runs: &[Order]) {
        self.state.orders.send_replace(runs.to_vec());
    }

    /// How many of these tasks have begun this run.
    pub(crate) fn started(&self, tasks: &[String], run: i32) -> usize {
        let begun = lock(&self.state.started);
        tasks.iter().filter(|task| begun.contains(&((*task).clone(), run))).count()
    }

    /// Whether a limited job is at work in this process.
    pub(crate) fn is_at_work(&self, pid: u32) -> bool {
        let at_work = lock(&self.state.at_work);
        at_work.iter().any(|(worker, ..)| *worker == pid)
    }

    /// Forgets the work of a process that has ended.
    pub(crate) fn forget(&self, pid: u32) {
        lock(&self.state.at_work).retain(|(worker, ..)| *worker != pid);
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A call for a transaction, whose id is its idempotency key.
#[handler]
async fn charge(request: &Request, body: String, Data(state): Data<&Arc<State>>) -> StatusCode {
    let body: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    let (Some(key), Some(id)) = (request.header("Idempotency-Key"), body["transaction_id"].as_str()) else {
        return StatusCode::BAD_REQUEST;
    };
    state.history.record(Event::Called { id: id.to_owned(), key: key.to_owned() });
    tokio::time::sleep(Duration::from_millis(state.delay_ms.load(Ordering::Relaxed))).await;
    StatusCode::OK
}

/// The report of a job of the schedule: the nominal time of its fire in seconds, and its id.
#[handler]
fn fired(body: String, Data(state): Data<&Arc<State>>) -> StatusCode {
    let Some((fire_time, job)) = body.split_once(' ').and_then(|(time, job)| Some((time.parse().ok()?, job))) else {
        return StatusCode::BAD_REQUEST;
    };
    state.history.record(Event::Fired { fire_time, job: job.to_owned() });
    StatusCode::OK
}

/// The report of a run that begins. The response is its order.
#[handler]
async fn started(body: String, Data(state): Data<&Arc<State>>) -> Result<&'static str, poem::Error> {
    let (job, run, _) = report(&body)?;
    state.history.record(Event::Started { job: job.clone(), run });
    lock(&state.started).insert((job, run));
    let mut orders = state.orders.subscribe();
    let place = usize::try_from(run).unwrap_or_default().saturating_sub(1);
    let order = |orders: &Vec<Order>| orders.get(place).or(orders.last()).copied().unwrap_or(Order::GoOn);
    // The sender lives in the state.
    let ordered = orders.wait_for(|orders| order(orders) != Order::Hold).await;
    Ok(match ordered.map(|orders| order(&orders)) {
        Ok(Order::Fail) => FAIL,
        _ => "",
    })
}

/// The report of a run that fails on purpose, and asks for a pause.
#[handler]
fn failed(body: String, Data(state): Data<&Arc<State>>) -> Result<StatusCode, poem::Error> {
    let (job, run, pause_ms) = report(&body)?;
    state.history.record(Event::Failed { job, run, pause_ms });
    Ok(StatusCode::OK)
}

/// The report of a run that has done its work.
#[handler]
fn ended(body: String, Data(state): Data<&Arc<State>>) -> Result<StatusCode, poem::Error> {
    let (job, run, _) = report(&body)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at_us = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
    state.history.record(Event::Ended { job, run, at_us });
    Ok(StatusCode::OK)
}

/// The report of a limited job whose work begins.
#[handler]
fn entered(body: String, Data(state): Data<&Arc<State>>) -> Result<StatusCode, poem::Error> {
    let (job, run, pid, key) = work(&body)?;
    state.history.record(Event::Entered { key, job: job.clone(), run, pid });
    lock(&state.at_work).insert((pid, job, run));
    Ok(StatusCode::OK)
}

/// The report of a limited job whose work has ended.
#[handler]
fn left(body: String, Data(state): Data<&Arc<State>>) -> Result<StatusCode, poem::Error> {
    let (job, run, pid, key) = work(&body)?;
    lock(&state.at_work).remove(&(pid, job.clone(), run));
    state.history.record(Event::Left { key, job, run });
    Ok(StatusCode::OK)
}

/// The id of a limited job, the number of its run, the process that runs it, and its key.
fn work(body: &str) -> Result<(String, i32, u32, String), poem::Error> {
    let (job, run, pid) = report(body)?;
    let key = body.split(' ').nth(3).ok_or(StatusCode::BAD_REQUEST)?;
    Ok((job, run, u32::try_from(pid).map_err(|_| StatusCode::BAD_REQUEST)?, key.to_owned()))
}

/// The id of the job, the number of its run, and a number that belongs to the report.
fn report(body: &str) -> Result<(String, i32, u64), poem::Error> {
    let read = || {
        let mut parts = body.split(' ');
        Some((parts.next()?.to_owned(), parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    read().ok_or(StatusCode::BAD_REQUEST.into())
}
