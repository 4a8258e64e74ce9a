//! The load: clients that post webhooks, repeat and contradict some, and read states. Each records what it saw.

mod open_loop;

use std::{
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use self::open_loop::OpenLoop;
pub use self::open_loop::RateReport;
use crate::history::{Event, History, Outcome, State};

/// The pause between two requests of one client.
const PAUSE: Duration = Duration::from_millis(15);
/// Of how many webhooks one is repeated, and one contradicted.
const REPEATED: usize = 10;
/// How many payloads may contradict one transaction.
const CONTRADICTIONS: u32 = 5;

/// Running clients.
pub(crate) struct Clients {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    /// The highest number of a client.
    number: usize,
    /// More webhooks, at a fixed rate.
    open_loop: Option<OpenLoop>,
}

/// A client that sends single requests.
pub(crate) struct Extra {
    shared: Arc<Shared>,
    client: usize,
}

impl Extra {
    /// Posts one webhook once.
    pub(crate) async fn post(&self, id: &str, payload: u32) -> Reply {
        self.shared.post(self.client, id, payload).await
    }

    /// Reads one transaction.
    pub(crate) async fn state(&self, id: &str) -> Option<State> {
        self.shared.get(self.client, id).await
    }
}

struct Shared {
    http: Client,
    url: RwLock<String>,
    history: Arc<History>,
    acknowledged: AtomicUsize,
    /// Clients begin no new webhook.
    is_paused: AtomicBool,
    stop: AtomicBool,
}

/// What a client knows after one request.
pub(crate) enum Reply {
    Acknowledged,
    /// 503, or no response: the client repeats the request.
    Again,
    Refused,
}

impl Clients {
    /// Starts `number` clients of the API at `url`.
    pub(crate) fn start(http: Client, url: &str, number: usize, history: Arc<History>, random: &mut Rng) -> Self {
        let shared = Arc::new(Shared {
            http,
            url: RwLock::new(url.to_owned()),
            history,
            acknowledged: AtomicUsize::new(0),
            is_paused: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        for client in 0..number {
            tasks.spawn(shared.clone().run(client, random.fork()));
        }
        Self { shared, tasks, number, open_loop: None }
    }

    /// Adds new webhooks at this rate, in webhooks a second.
    pub(crate) fn add_rate(&mut self, rate: u32) {
        let open_loop = OpenLoop::new(rate);
        self.tasks.spawn(open_loop.clone().run(self.shared.clone()));
        self.open_loop = Some(open_loop);
    }

    /// The number of 202s so far.
    pub(crate) fn acknowledged(&self) -> usize {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Sends all further requests to this API.
    pub(crate) fn redirect(&self, url: &str) {
        if let Ok(mut current) = self.shared.url.write() {
            url.clone_into(&mut current);
        }
    }

    /// The client and the URL of all requests.
    pub(crate) fn api(&self) -> (Client, String) {
        (self.shared.http.clone(), self.shared.url())
    }

    /// Pauses or resumes the load. Requests that are under way go on.
    pub(crate) fn pause(&self, is_paused: bool) {
        self.shared.is_paused.store(is_paused, Ordering::Relaxed);
    }

    /// A client of its own for single requests. Requests that are under way at once need several of them.
    pub(crate) fn extra(&mut self) -> Extra {
        self.number += 1;
        Extra { shared: self.shared.clone(), client: self.number }
    }

    /// Waits until each client has finished its present webhook. Returns what became of those of a fixed rate.
    pub(crate) async fn finish(&mut self) -> Option<RateReport> {
        let time = self.open_loop.as_ref().map(OpenLoop::elapsed);
        self.shared.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        Some(self.open_loop.as_ref()?.report(time?))
    }
}

impl Shared {
    async fn run(self: Arc<Self>, client: usize, mut random: Rng) {
        let mut number = 0_usize;
        while !self.stop.load(Ordering::Relaxed) {
            if self.is_paused.load(Ordering::Relaxed) {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let id = format!("t{client}-{number}");
            if !self.post_until_acknowledged(client, &id, 0).await {
                return;
            }
            let earlier = format!("t{client}-{}", random.usize(0..=number));
            if number % REPEATED == 3 {
                self.post_until_acknowledged(client, &earlier, 0).await;
            }
            if number % REPEATED == 7 {
                let payload = random.u32(1..=CONTRADICTIONS);
                self.post_until_acknowledged(client, &earlier, payload).await;
            }
            self.get(client, &earlier).await;
            number += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn url(&self) -> String {
        self.url.read().map(|url| url.clone()).unwrap_or_default()
    }

    /// Returns whether it was acknowledged. A client that is stopped meanwhile gives up.
    async fn post_until_acknowledged(&self, client: usize, id: &str, payload: u32) -> bool {
        loop {
            match self.post(client, id, payload).await {
                Reply::Acknowledged => return true,
                Reply::Refused => return false,
                Reply::Again if self.stop.load(Ordering::Relaxed) => return false,
                Reply::Again => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn post(&self, client: usize, id: &str, payload: u32) -> Reply {
        self.history.record(Event::Sent { id: id.to_owned(), payload });
        let request = self.http.post(format!("{}/v1/webhooks/transactions", self.url())).json(&webhook(id, payload));
        match request.send().await {
            Ok(response) if response.status() == StatusCode::ACCEPTED => {
                let outcome = outcome(&response);
                // The status alone acknowledges, even if the body is lost.
                self.history.record(Event::Acknowledged { id: id.to_owned(), payload, outcome });
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
                self.record_state(client, id, response).await;
                Reply::Acknowledged
            }
            other => self.record_other(id, other),
        }
    }

    async fn get(&self, client: usize, id: &str) -> Option<State> {
        match self.http.get(format!("{}/v1/transactions/{id}", self.url())).send().await {
            Ok(response) if response.status() == StatusCode::OK => self.record_state(client, id, response).await,
            other => {
                self.record_other(id, other);
                None
            }
        }
    }

    fn record_other(&self, id: &str, response: reqwest::Result<Response>) -> Reply {
        let id = id.to_owned();
        match response {
            Ok(response) if is_unavailable(&response) => self.history.record(Event::Unavailable { id }),
            Ok(response) => {
                self.history.record(Event::Refused { id, reason: format!("the response {}", response.status()) });
                return Reply::Refused;
            }
            Err(_) => self.history.record(Event::Unanswered { id }),
        }
        Reply::Again
    }

    async fn record_state(&self, client: usize, id: &str, response: Response) -> Option<State> {
        let body: Value = response.json().await.ok()?;
        let text = |field: &str| body.get(field)?.as_str().map(str::to_owned);
        let state = State { status: text("status")?, processed_at: text("processed_at") };
        self.history.record(Event::Seen { client, id: id.to_owned(), state: state.clone() });
        Some(state)
    }
}

/// The webhook with this id; payloads other than 0 contradict it.
fn webhook(id: &str, payload: u32) -> Value {
    json!({
        "transaction_id": id, "source_account": "acc_user_1", "destination_account": "acc_merchant_1",
        "amount": 1500 + payload, "currency": "INR",
    })
}

fn outcome(response: &Response) -> Outcome {
    let has = |name: &str| response.headers().contains_key(name);
    match (has("idempotency-conflict"), has("idempotency-replayed")) {
        (true, _) => Outcome::Conflict,
        (_, true) => Outcome::Replayed,
        _ => Outcome::New,
    }
}

/// Whether the response is a 503 that says when to try again.
fn is_unavailable(response: &Response) -> bool {
    let after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    response.status() == StatusCode::SERVICE_UNAVAILABLE && after.is_some_and(|seconds| seconds > 0)
}
