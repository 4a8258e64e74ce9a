//! Callbacks: POSTs each settlement to a receiver, signed by Standard Webhooks 1.0, until the receiver has it.
//!
//! The callback and its job are written in the transaction that settles. A destination that responds 410, or fails for three
//! days, is disabled until an operator enables it.

mod client;
pub(super) mod config;
mod destinations;
mod limits;
mod metrics;
pub mod model;
mod problems;
mod public_address;
mod resolver;
pub mod send_callback;
pub(super) mod store;

use std::{collections::HashSet, sync::Arc, time::Duration};

use serde::Serialize;
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::{
    client::{CallbackClient, Message, TryFailure, TryResult},
    config::Config,
    destinations::{Destination, Destinations},
    limits::Call,
    metrics::CallbackMetrics,
    model::{CallbackKind, DestinationProblem, DestinationStatus, Enabled, TestMessage, Tested, audit_target, label},
    problems::DestinationProblems,
    send_callback::{GIVE_UP_AFTER, SendCallback},
};
use super::{
    json::JsonTime,
    model::SettleRequest,
    retention,
    store::{columns, notify_settled},
};
use queue::{
    FairKey, Job, JobId, NewJob, Origin, Queue, Retention,
    batch::{Batch, Limits},
    enqueue,
    operator::audit::{self, Order, Via},
};
use runtime::{db::Pool, error::Error};

/// Reads and deliveries of concurrent jobs share statements: [`limits::SLOTS`] jobs run at once in a worker.
const BATCHES: Limits = Limits { writers: 2, size: 500, waiting: 20_000, wait: None };
/// The most characters of the reason for which a destination is disabled.
const MAX_REASON: usize = 300;

/// How long a scrape waits for the list of destinations, which is small.
const GAUGES_LIMIT: Duration = Duration::from_millis(500);

/// The callbacks of settlements. Clones share everything.
#[derive(Clone)]
pub struct Callbacks {
    pool: Pool,
    queue: Queue,
    destinations: Arc<Destinations>,
    client: Arc<CallbackClient>,
    metrics: CallbackMetrics,
    problems: Arc<DestinationProblems>,
    loads: Batch<Uuid, Option<store::Loaded>>,
    deliveries: Batch<store::Delivery, ()>,
}

impl Callbacks {
    /// Starts the feature. Without a configured destination it sends nothing.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub(super) fn start(pool: &Pool, queue: &Queue, config: &Config) -> Result<Self, Error> {
        queue::metrics::zero(SendCallback::NAME);
        Ok(Self {
            destinations: Arc::new(Destinations::new(config)),
            client: Arc::new(CallbackClient::new(config.allow_private)?),
            metrics: CallbackMetrics::new(),
            problems: Arc::new(DestinationProblems::new(pool)),
            loads: Batch::on_pool(BATCHES, pool, store::load),
            deliveries: Batch::on_pool(BATCHES, pool, store::record_deliveries),
            pool: pool.clone(),
            queue: queue.clone(),
        })
    }

    /// The same callbacks, whose list of destinations uses the sessions of another pool.
    pub(super) fn reading(&self, pool: &Pool) -> Self {
        Self { pool: pool.clone(), ..self.clone() }
    }

    /// Whether settlements are sent anywhere.
    pub(super) fn is_configured(&self) -> bool {
        !self.destinations.is_empty()
    }

    /// Settles those that are still processing, and enqueues their callbacks in the same transaction. Returns which ones
    /// changed.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is not available. Then nothing is settled, or the outcome of the commit is
    /// unknown.
    pub(super) async fn settle(&self, requests: Vec<SettleRequest>) -> Result<Vec<bool>, Error> {
        let (ids, statuses, errors) = columns(requests);
        let settlements = store::Settlements { ids: &ids, statuses: &statuses, errors: &errors };
        let named: Vec<String> = self.destinations.names().into_iter().filter(|name| !name.is_empty()).collect();
        let has_common = self.destinations.get("").is_some();
        let mut tx = self.queue.begin().await?;
        let settled = store::settle(&mut tx, settlements, &named, has_common).await?;
        let mut jobs = Vec::new();
        for one in &settled {
            jobs.extend(job(one, self.destinations.are_several())?);
        }
        enqueue(&mut tx, &jobs).await?;
        tx.commit().await?;
        let settled: Vec<Uuid> = settled.into_iter().map(|one| one.transaction).collect();
        notify_settled(&self.pool, &settled).await;
        let settled: HashSet<Uuid> = settled.into_iter().collect();
        Ok(ids.iter().map(|id| settled.contains(id)).collect())
    }

    /// Sends a message as this call of its destination, and ends the call.
    async fn send(&self, destination: &Destination, call: Call<'_>, message: &Message) -> TryResult {
        let begun = Instant::now();
        let result = self.client.send(destination, message).await;
        self.metrics.request.record(begun.elapsed());
        destination.end_call(call, result.is_up());
        result
    }

    /// Records a delivery, so long after the settlement.
    async fn record_delivery(&self, id: Uuid, status: u16, after: Duration) -> Result<(), Error> {
        self.metrics.delivered.increment(1);
        self.metrics.delivery.record(after);
        self.deliveries.call(store::Delivery { id, status }).await
    }

    /// Records a failed try. Returns whether the destination has failed for three days without a success.
    async fn record_failure(&self, job: &SendCallback, status: Option<u16>, error: &str) -> Result<bool, Error> {
        self.metrics.failed.increment(1);
        store::record_failure(&self.pool, job.id, &job.destination, status, error, GIVE_UP_AFTER).await
    }

    async fn give_up(&self, id: Uuid, reason: &str) -> Result<(), Error> {
        if store::give_up(&self.pool, id, reason).await? {
            self.metrics.gave_up.increment(1);
        }
        Ok(())
    }

    /// Disables a destination, and records that like an action of an operator.
    async fn disable(&self, destination: &str, because: &str) -> Result<(), Error> {
        let because: String = because.chars().take(MAX_REASON).collect();
        let order = Order::new("millrace", Via::Worker, &because).map_err(Error::Internal)?;
        let mut tx = self.queue.begin().await?;
        if store::disable(&mut tx, destination, &order.reason).await? {
            audit::record(&mut tx, &order, "disable_callbacks", &audit_target(destination)).await?;
            tx.commit().await?;
            self.problems.forget().await;
            tracing::error!(destination = label(destination), because, "callbacks to a destination are disabled");
        }
        Ok(())
    }

    /// Lists the destinations of the configuration, and all others with a problem.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is not available.
    pub async fn list(&self) -> Result<Vec<DestinationStatus>, Error> {
        let rows = store::destinations(&self.pool, &self.destinations.names()).await?;
        let status = |row: store::DestinationRow| DestinationStatus {
            url: self.destinations.get(&row.name).map(Destination::shown_url),
            name: row.name,
            failing_since: row.failing_since,
            disabled_at: row.disabled_at,
            disabled_because: row.disabled_because,
            waiting: row.waiting,
        };
        Ok(rows.into_iter().map(status).collect())
    }

    /// The destinations that are failing or disabled, by name. All readers of a process share a statement every 2 s, on the
    /// sessions of the features. The reader waits for them until `late`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database has not been available, or not in time, for a minute.
    pub async fn problems(&self, late: impl Future<Output = ()>) -> Result<Arc<[DestinationProblem]>, Error> {
        self.problems.list(late).await
    }

    /// The gauge of destinations with a problem, in Prometheus' text format; empty if they are not known.
    pub(crate) async fn gauges(&self) -> String {
        let problems = self.problems.list(tokio::time::sleep(GAUGES_LIMIT)).await;
        problems.map_or_else(|_| String::new(), |problems| metrics::destinations(&problems))
    }

    /// Enables a destination again. The callbacks that were given up meanwhile are dead letters; a replay sends them.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is not available.
    pub async fn enable(&self, destination: &str, order: &Order) -> Result<Enabled, Error> {
        let mut tx = self.queue.begin().await?;
        if !store::enable(&mut tx, destination).await? {
            let is_known = self.destinations.get(destination).is_some();
            return Ok(if is_known { Enabled::NotDisabled } else { Enabled::Unknown });
        }
        audit::record(&mut tx, order, "enable_callbacks", &audit_target(destination)).await?;
        tx.commit().await?;
        self.problems.forget().await;
        tracing::info!(destination = label(destination), actor = order.actor, "callbacks to a destination are enabled");
        Ok(Enabled::Enabled)
    }

    /// Sends a test message to a destination, also to a disabled one, and waits for the response. `at` is the time of the
    /// message.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is not available. Then nothing was sent.
    pub async fn test(&self, destination: &str, at: OffsetDateTime, order: &Order) -> Result<Tested, Error> {
        if self.destinations.is_empty() {
            return Ok(Tested::NotConfigured);
        }
        let Some(found) = self.destinations.get(destination) else { return Ok(Tested::Unknown) };
        let mut tx = self.queue.begin().await?;
        audit::record(&mut tx, order, "test_callbacks", &audit_target(destination)).await?;
        tx.commit().await?;
        let message = Message { id: Uuid::now_v7(), at, body: test_body(destination, at)? };
        let (status, error) = match self.client.send(found, &message).await {
            TryResult::Delivered { status } => (Some(status), None),
            TryResult::Gone { error } => (Some(410), Some(error)),
            TryResult::Failed(TryFailure { status, error, .. }) => (status, Some(error)),
        };
        let (webhook_id, destination) = (message.id, destination.to_owned());
        Ok(Tested::Sent(TestMessage { webhook_id, destination, delivered: error.is_none(), status, error }))
    }

    /// Deletes callbacks at the age at which dead letters are deleted, until `stop`.
    pub(super) async fn run_retention(&self, retention: Retention, stop: &CancellationToken) {
        let delete = |after, age| store::delete_expired(&self.pool, after, age);
        retention::run(retention, stop, "callbacks", delete).await;
    }
}

/// The job of a settlement's callback, if it has one. Its id is that of the callback. With `is_fair`, it shares the slots of
/// the queue with the jobs of other destinations.
fn job(settled: &store::Settled, is_fair: bool) -> Result<Option<NewJob>, Error> {
    let (Some(id), Some(destination), Some(kind)) = (settled.callback, &settled.destination, &settled.kind) else {
        return Ok(None);
    };
    let kind: CallbackKind =
        kind.parse().map_err(|_| Error::Internal(format!("callback {id}: unknown kind {kind:?}")))?;
    let job = SendCallback {
        id,
        transaction: settled.transaction,
        destination: destination.clone(),
        kind,
        error: settled.error.clone(),
        settled_at: settled.settled_at,
    };
    let origin = Origin { correlation_id: settled.correlation_id.clone(), traceparent: None };
    let job = NewJob::of(&job)?.id(JobId::from(id)).origin(origin);
    Ok(Some(if is_fair { job.fair_key(FairKey::of(destination)) } else { job }))
}

/// The body of a test message.
fn test_body(destination: &str, at: OffsetDateTime) -> Result<Vec<u8>, Error> {
    #[derive(Serialize)]
    struct Data<'a> {
        destination: &'a str,
    }
    #[derive(Serialize)]
    struct Body<'a> {
        r#type: &'static str,
        timestamp: JsonTime,
        data: Data<'a>,
    }
    let body = Body { r#type: "callback.test", timestamp: JsonTime(at), data: Data { destination } };
    serde_json::to_vec(&body).map_err(|error| Error::Internal(format!("body of a test message: {error}")))
}
