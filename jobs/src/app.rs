//! Builds every feature from the configuration: read it to see what the system is made of.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::{
    boot::{
        db::{self, Database},
        listen,
        migrate::SchemaError,
        pooler::{self, Pooler},
        process,
        shutdown::Shutdown,
        telemetry,
    },
    config::{Environment, Vars},
    error::{Error, causes},
    items::{
        Items,
        search::{self, Searcher, reindex::ReindexItems},
    },
    logs::Logs,
    prices::{
        self, Prices,
        fetch::{self, FetchPrices},
    },
    probes::Probes,
    queue::{Gauges, Job, Kinds, Operator, Queue, Retention, Timing, metrics},
    rates::{self, Rates, reconcile::ReconcileRate},
    remote::redis::{Redis, RedisUrl},
    schedule::{Schedule, Schedules},
    transactions::{self, Transactions, process::ProcessTransaction},
    users::Users,
};

/// Renders all metrics in Prometheus' text format.
pub type Metrics = Arc<dyn Fn() -> BoxFuture<'static, String> + Send + Sync>;

/// What every process of ours is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// `ENV`
    pub environment: Environment,
    /// `DATABASE_URL`, `DATABASE_POOLER`; unset means the embedded PostgreSQL of the all-in-one.
    pub database: Option<Database>,
    /// The clockwork of the queue.
    pub timing: Timing,
    pub telemetry: telemetry::Config,
    pub transactions: transactions::Config,
    /// `REDIS_URL`: what all processes share, beside the database; unset means nothing.
    pub redis: Option<RedisUrl>,
    pub search: search::Config,
    pub rates: rates::Config,
    pub prices: prices::Config,
}

impl Config {
    /// Reads the variables named at the fields.
    pub fn read(vars: &mut Vars) -> Self {
        let environment = Environment::read(vars);
        let database = vars.read("DATABASE_URL", None, |url| Database::parse(url).map(Some));
        let pooler = vars.read("DATABASE_POOLER", Pooler::None, Pooler::parse);
        Self {
            environment,
            database: database.map(|database| database.through(pooler)),
            timing: timing(vars),
            telemetry: telemetry::Config::read(vars, environment),
            transactions: transactions::Config::read(vars),
            redis: RedisUrl::read(vars),
            search: search::Config::read(vars),
            rates: rates::Config::read(vars),
            prices: prices::Config::read(vars),
        }
    }
}

/// Makes sure that the database is named, for processes that cannot do without `DATABASE_URL`.
pub fn require_database(vars: &mut Vars, config: &Config) -> Option<Database> {
    if !vars.is_set("DATABASE_URL") {
        vars.problem("DATABASE_URL", "must be set, such as postgres://user:password@localhost:5432/millrace");
    }
    config.database.clone()
}

/// Makes sure that prod sets what must not be left to a default, for processes that accept or run transactions.
pub fn require_choices(vars: &mut Vars, config: &Config) {
    transactions::Config::require_choice(vars, config.environment);
}

/// `QUEUE_LEASE_SECONDS`, `QUEUE_HEARTBEAT_SECONDS`, `QUEUE_RESCUE_SECONDS`, `QUEUE_POLL_SECONDS`: for tests and for
/// unusual networks.
fn timing(vars: &mut Vars) -> Timing {
    let shipped = Timing::default();
    let timing = Timing {
        lease: vars.seconds("QUEUE_LEASE_SECONDS", shipped.lease.as_secs_f64(), 0.5..=3600.0),
        heartbeat: vars.seconds("QUEUE_HEARTBEAT_SECONDS", shipped.heartbeat.as_secs_f64(), 0.05..=1200.0),
        rescue: vars.seconds("QUEUE_RESCUE_SECONDS", shipped.rescue.as_secs_f64(), 0.05..=600.0),
        poll: vars.seconds("QUEUE_POLL_SECONDS", shipped.poll.as_secs_f64(), 0.01..=60.0),
        retention: retention(vars),
    };
    if timing.heartbeat.mul_f64(2.0) > timing.lease {
        vars.problem("QUEUE_HEARTBEAT_SECONDS", "must be at most half of QUEUE_LEASE_SECONDS, such as a third");
    }
    timing
}

/// `QUEUE_KEEP_DONE_HOURS`, `QUEUE_KEEP_DEAD_DAYS`: at least an hour, so that no mistake empties the tables.
fn retention(vars: &mut Vars) -> Retention {
    const HOUR: u64 = 3600;
    let shipped = Retention::SHIPPED;
    let hours = vars.number("QUEUE_KEEP_DONE_HOURS", shipped.done.as_secs() / HOUR, 1..=24 * 3650);
    let days = vars.number("QUEUE_KEEP_DEAD_DAYS", shipped.dead.as_secs() / (24 * HOUR), 1..=3650);
    Retention { done: Duration::from_secs(hours * HOUR), dead: Duration::from_secs(days * 24 * HOUR), ..shipped }
}

/// With the search for the cause of a failure, below the 3 s after which the API itself gives up.
const READY_WITHIN: Duration = Duration::from_secs(2);
/// Sessions that the features of one process share.
const SESSIONS: u32 = 12;

/// Every feature, started.
#[derive(Clone)]
pub struct App {
    pub transactions: Transactions,
    pub users: Users,
    pub items: Items,
    /// Finds items.
    pub search: Searcher,
    pub rates: Rates,
    pub probes: Probes,
    pub prices: Prices,
    /// `REDIS_URL`: what all processes share, beside the database.
    pub redis: Option<Redis>,
    /// What all processes have logged.
    pub logs: Logs,
    /// What is done at fixed times.
    pub schedules: Schedules,
    /// An operator's hands on all queues.
    pub operator: Operator,
    /// What `/metrics` shows of all queues.
    gauges: Gauges,
    database: Database,
    queue: Queue,
    pool: PgPool,
}

impl App {
    /// Starts the features; `stop` ends everything that waits.
    ///
    /// # Errors
    /// What cannot be started.
    pub fn start(database: &Database, config: &Config, role: &str, stop: &CancellationToken) -> Result<Self, Error> {
        metrics::describe();
        metrics::zero(ReindexItems::NAME);
        listen::describe();
        pooler::describe();
        let pool = database.pool(role, SESSIONS);
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
        // The kinds of job that give up a record when they are given up themselves.
        let kinds = Kinds::default()
            .kind::<ProcessTransaction>(transactions.clone())
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
            database: database.clone(),
            queue,
            pool,
        })
    }

    /// Brings what earlier releases have written to this release's form, every minute until the stop: while
    /// processes of such a release still run, there is always more.
    pub async fn catch_up(self, stop: CancellationToken) {
        const EVERY: Duration = Duration::from_secs(60);
        loop {
            for result in
                [Users::add_missing_keys(&self.pool).await.map(drop), self.search.enqueue_reindex(&self.queue).await]
            {
                if let Err(error) = result {
                    tracing::warn!(
                        error = causes(&error),
                        "could not catch up with earlier releases, to be tried again"
                    );
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    /// Hears what other processes tell those who wait; runs until the stop.
    pub async fn watch(&self) {
        self.transactions.listen_for_settlements(&self.database).await;
    }

    /// What `/metrics` shows: the metrics of this process, and the gauges of all queues, measured for each reader.
    pub fn metrics<F>(&self, process: F) -> Metrics
    where
        F: Fn() -> String + Send + Sync + 'static,
    {
        let (gauges, process) = (self.gauges.clone(), Arc::new(process));
        Arc::new(move || {
            let (gauges, process) = (gauges.clone(), process.clone());
            Box::pin(async move {
                let queues = gauges.render().await;
                process() + &queues
            })
        })
    }

    /// Waits for the database and makes sure that it has this program's schema; `false` when told to stop meanwhile.
    ///
    /// # Errors
    /// When the schema is another one.
    pub async fn await_schema(&self, shutdown: &Shutdown) -> Result<bool, SchemaError> {
        process::await_schema(&self.pool, shutdown).await
    }

    /// Makes sure that the database can be reached, and has this program's schema or that of a release after it.
    ///
    /// # Errors
    /// Why not.
    pub async fn check_schema(&self) -> Result<(), String> {
        db::check_schema(&self.pool, READY_WITHIN).await
    }

    /// Whether the database can be reached and written to, and has this program's schema or that of a release after it.
    ///
    /// # Errors
    /// Why not.
    pub async fn ready(&self) -> Result<(), String> {
        db::ready(&self.pool, READY_WITHIN).await
    }
}
