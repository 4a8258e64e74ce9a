//! Composition root: builds all features from the configuration.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::{
    interest_rates::{self, Rates, reconcile::ReconcileRate},
    items::{
        Items,
        search::{self, Searcher, reindex::ReindexItems},
    },
    logs::Logs,
    mars_probes::Probes,
    prices::{
        self, Prices,
        fetch::{self, FetchPrices},
    },
    transactions::{self, Transactions, callbacks::send_callback::SendCallback, process::ProcessTransaction},
    users::Users,
};
use queue::{
    Gauges, Job, JobKinds, Operator, Queue, Retention, Timing, metrics,
    operator::replays::ReplayDeadLetters,
    schedule::{Schedule, Schedules},
};
use runtime::{
    clients::redis::{Redis, RedisUrl},
    config::{ConfigErrors, EnvReader, Environment},
    db::{Database, Pool},
    doctor,
    error::{Error, causes},
    executor, listen,
    migrate::SchemaError,
    pooler::Pooler,
    process, readiness,
    shutdown::Shutdown,
    telemetry,
};

/// Renders all metrics in Prometheus' text format.
pub type Metrics = Arc<dyn Fn() -> BoxFuture<'static, String> + Send + Sync>;

/// The configuration that all processes share.
#[derive(Debug, Clone)]
pub struct Config {
    /// `ENV`
    pub environment: Environment,
    /// `DATABASE_URL`, `DATABASE_POOLER`; unset means the embedded PostgreSQL of the all-in-one.
    pub database: Option<Database>,
    /// The intervals of the queue.
    pub timing: Timing,
    pub telemetry: telemetry::Config,
    pub transactions: transactions::Config,
    /// `REDIS_URL`: the cache and rate limits that all processes share. Unset means in-process ones.
    pub redis: Option<RedisUrl>,
    pub search: search::Config,
    pub rates: interest_rates::Config,
    pub prices: prices::Config,
}

impl Config {
    /// Reads the variables that the fields name.
    pub fn read(vars: &mut EnvReader) -> Self {
        let environment = Environment::read(vars);
        let database = vars.read("DATABASE_URL", None, |url| Database::parse(url).map(Some));
        let pooler = vars.read("DATABASE_POOLER", Pooler::None, Pooler::parse);
        Self {
            environment,
            database: database.map(|database| database.with_pooler(pooler)),
            timing: timing(vars),
            telemetry: telemetry::Config::read(vars, environment),
            transactions: transactions::Config::read(vars),
            redis: RedisUrl::read(vars),
            search: search::Config::read(vars),
            rates: interest_rates::Config::read(vars),
            prices: prices::Config::read(vars),
        }
    }
}

/// Reads the configuration of a process that cannot run without a database.
///
/// # Errors
/// All problems of the configuration at once.
pub fn read_with_database() -> Result<(Config, Database), ConfigErrors> {
    let mut vars = EnvReader::from_env();
    let config = Config::read(&mut vars);
    let database = require_database(&mut vars, &config);
    vars.finish(database)?.map(|database| (config, database)).ok_or_else(ConfigErrors::default)
}

/// Returns the configured database. An unset `DATABASE_URL` becomes a configuration error, for processes that cannot
/// run without it.
pub fn require_database(vars: &mut EnvReader, config: &Config) -> Option<Database> {
    if !vars.is_set("DATABASE_URL") {
        vars.add_error("DATABASE_URL", "must be set, such as postgres://user:password@localhost:5432/millrace");
    }
    config.database.clone()
}

/// Requires explicit values in prod for settings without a safe default, for processes that accept or run transactions.
pub fn require_choices(vars: &mut EnvReader, config: &Config) {
    transactions::Config::require_choice(vars, config.environment);
}

/// Reads `QUEUE_LEASE_SECONDS`, `QUEUE_HEARTBEAT_SECONDS`, `QUEUE_RESCUE_SECONDS` and `QUEUE_POLL_SECONDS`, which exist
/// for tests and for unusual networks.
fn timing(vars: &mut EnvReader) -> Timing {
    let shipped = Timing::default();
    let timing = Timing {
        lease: vars.seconds("QUEUE_LEASE_SECONDS", shipped.lease.as_secs_f64(), 0.5..=3600.0),
        heartbeat: vars.seconds("QUEUE_HEARTBEAT_SECONDS", shipped.heartbeat.as_secs_f64(), 0.05..=1200.0),
        rescue: vars.seconds("QUEUE_RESCUE_SECONDS", shipped.rescue.as_secs_f64(), 0.05..=600.0),
        poll: vars.seconds("QUEUE_POLL_SECONDS", shipped.poll.as_secs_f64(), 0.01..=60.0),
        retention: retention(vars),
    };
    if timing.heartbeat.mul_f64(2.0) > timing.lease {
        vars.add_error("QUEUE_HEARTBEAT_SECONDS", "must be at most half of QUEUE_LEASE_SECONDS, such as a third");
    }
    timing
}

/// Reads `QUEUE_KEEP_DONE_HOURS` and `QUEUE_KEEP_DEAD_DAYS`. The minimum is an hour, so that a mistake cannot empty the
/// tables.
fn retention(vars: &mut EnvReader) -> Retention {
    const HOUR: u64 = 3600;
    let shipped = Retention::DEFAULT;
    let hours = vars.number("QUEUE_KEEP_DONE_HOURS", shipped.done.as_secs() / HOUR, 1..=24 * 3650);
    let days = vars.number("QUEUE_KEEP_DEAD_DAYS", shipped.dead.as_secs() / (24 * HOUR), 1..=3650);
    Retention { done: Duration::from_secs(hours * HOUR), dead: Duration::from_secs(days * 24 * HOUR), ..shipped }
}

/// The time limit of a readiness check. It includes finding the cause of a failure, and is below the API's own limit of
/// 3 s.
const READY_TIMEOUT: Duration = Duration::from_secs(2);
/// The size of the connection pool that the features of one process share.
const MAX_SESSIONS: u32 = 12;

/// The sessions of views. Few, so that people who look at queues never take sessions from requests and jobs.
const VIEW_SESSIONS: u32 = 2;
/// The time limit of a view's statements, and of its wait for a session.
const VIEW_LIMIT: Duration = Duration::from_secs(1);

/// All features, started.
#[derive(Clone)]
pub struct App {
    pub transactions: Transactions,
    pub users: Users,
    pub items: Items,
    /// The search for items.
    pub search: Searcher,
    pub rates: Rates,
    pub probes: Probes,
    pub prices: Prices,
    /// `REDIS_URL`: the cache and rate limits that all processes share.
    pub redis: Option<Redis>,
    /// The log files of all processes.
    pub logs: Logs,
    /// The cron schedules.
    pub schedules: Schedules,
    /// The operator's actions on all queues.
    pub operator: Operator,
    /// The gauges of all queues for `/metrics`.
    gauges: Gauges,
    /// Locked during an examination of the database.
    examining: Arc<tokio::sync::Mutex<()>>,
    database: Database,
    queue: Queue,
    pool: Pool,
}

impl App {
    /// Starts all features. `stop` ends everything that waits.
    ///
    /// # Errors
    /// Fails if a feature cannot start, for example because its HTTP client cannot be built.
    pub fn start(
        database: &Database,
        config: &Config,
        role: &'static str,
        stop: &CancellationToken,
    ) -> Result<Self, Error> {
        metrics::describe();
        metrics::zero(ReindexItems::NAME);
        metrics::zero(ReplayDeadLetters::NAME);
        listen::describe();
        executor::describe();
        let pool = database.pool(role, MAX_SESSIONS);
        let queue = Queue::start(pool.clone());
        let transactions = Transactions::start(&pool, &queue, &config.transactions, stop.clone())?;
        let users = Users::start(&pool);
        let search = Searcher::start(&pool, &config.search)?;
        let redis = config.redis.as_ref().map(Redis::start).transpose()?;
        let items = Items::start(&pool, &queue, redis.clone(), Arc::new(search.clone()));
        let prices = Prices::start(&pool, &queue, &config.prices, redis.clone())?;
        let logs = Logs::start(&config.telemetry);
        let rates = Rates::start(&pool, &queue, &config.rates)?;
        let probes = Probes::start(&pool);
        let daily = config.prices.fetch_cron.clone().map(|cron| Schedule {
            name: fetch::SCHEDULE,
            cron,
            catch_up: config.prices.fetch_catch_up,
            work: Arc::new(prices.clone()),
        });
        let schedules = Schedules::new(&pool, &queue, daily.into_iter().collect());
        // The kinds of job whose record must be ended when the job is discarded.
        let kinds = JobKinds::default()
            .kind::<ProcessTransaction>(transactions.clone())
            .kind::<SendCallback>(transactions.callbacks().clone())
            .kind::<FetchPrices>(prices.clone())
            .kind::<ReconcileRate>(rates.clone());
        let operator = Operator::new(&pool, &queue, kinds);
        let gauges = Gauges::new(&pool);
        Ok(Self {
            transactions,
            users,
            items,
            search,
            rates,
            probes,
            prices,
            redis,
            logs,
            schedules,
            operator,
            gauges,
            examining: Arc::default(),
            database: database.clone(),
            queue,
            pool,
        })
    }

    /// The same features for the views of operators: what they read of queues and transactions has its own two sessions,
    /// and each statement one second. Actions go through [`App::start`]'s own sessions. Call it once in a process.
    #[must_use]
    pub fn for_views(&self) -> Self {
        let pool = self.database.limited_pool("views", VIEW_SESSIONS, VIEW_LIMIT);
        Self { operator: self.operator.reading(&pool), transactions: self.transactions.reading(&pool), ..self.clone() }
    }

    /// Upgrades data of earlier releases to this release's format, once a minute until the stop. It repeats because
    /// processes of an earlier release may still run and write more.
    pub async fn catch_up(self, stop: CancellationToken) {
        const EVERY: Duration = Duration::from_secs(60);
        loop {
            for result in
                [Users::add_missing_keys(&self.pool).await.map(drop), self.search.enqueue_reindex(&self.queue).await]
            {
                if let Err(error) = result {
                    tracing::warn!(
                        error = causes(&error),
                        retry_after_s = EVERY.as_secs(),
                        "upgrading data of earlier releases failed; it is retried"
                    );
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    /// Listens for settlements by all processes, and wakes the callers that wait for them. Runs until the stop.
    pub async fn listen_for_settlements(&self) {
        self.transactions.listen_for_settlements(&self.database).await;
    }

    /// The renderer of `/metrics`: the metrics of this process, and the gauges of all queues and of callbacks, measured for each
    /// scrape.
    pub fn metrics<F>(&self, process: F) -> Metrics
    where
        F: Fn() -> String + Send + Sync + 'static,
    {
        let (gauges, callbacks) = (self.gauges.clone(), self.transactions.callbacks().clone());
        let process = Arc::new(process);
        Arc::new(move || {
            let (gauges, callbacks, process) = (gauges.clone(), callbacks.clone(), process.clone());
            Box::pin(async move {
                let (queues, destinations) = tokio::join!(gauges.render(), callbacks.gauges());
                process() + &queues + &destinations
            })
        })
    }

    /// Waits for the database, then checks that it has this program's schema. Returns `false` if the process is stopped
    /// meanwhile.
    ///
    /// # Errors
    /// Fails if the database has another schema.
    pub async fn await_schema(&self, shutdown: &Shutdown) -> Result<bool, SchemaError> {
        process::await_schema(&self.pool, shutdown).await
    }

    /// Examines the database. One examination at a time runs in a process, so that few sessions are open for it.
    pub async fn examine_database(&self) -> doctor::Report {
        let _one = self.examining.lock().await;
        doctor::examine(&self.database, &doctor::Limits::default()).await
    }

    /// Checks that the database can be reached, and has the schema of this or a later release.
    ///
    /// # Errors
    /// Returns the reason if one of them does not hold.
    pub async fn check_schema(&self) -> Result<(), String> {
        readiness::check_schema(&self.pool, READY_TIMEOUT).await
    }

    /// Checks that the database can be reached and written to, and has the schema of this or a later release.
    ///
    /// # Errors
    /// Returns the reason if one of them does not hold.
    pub async fn ready(&self) -> Result<(), String> {
        readiness::check_ready(&self.pool, READY_TIMEOUT).await
    }
}
