//! Items over HTTP, and the feature itself with both caches and a recording search index.

mod caches;
mod crud;
mod indexing;
mod interleaving;
mod names;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use jobs::{
    items::{
        Change, Contents, Expected, Item, ItemId, Items,
        index::{Index, IndexItem},
    },
    users::{Role, UserId, token::Tokens},
};
use queue::{Origin, Queue, Registry, Worker};
use runtime::{
    clients::redis::{Redis, RedisUrl},
    config::EnvReader,
    error::Error,
    shutdown::Shutdown,
};
use sqlx::PgPool;
use tokio::sync::Semaphore;

use crate::harness::{
    database::{self, TestDatabase},
    queue_harness::{FAST, RunningWorker},
    system::System,
};

const SECRET: &str = "a secret of the tests, 32 bytes long or more";
const ITEMS: &str = "/api/v1/items";
/// A time-out of Redis that a busy machine keeps.
const PATIENT: Duration = Duration::from_secs(20);

/// Starts an API process that accepts the tokens of [`create_user`].
async fn start(variables: &[(&str, &str)]) -> System {
    System::start(&[&[("JWT_SECRET", SECRET)], variables].concat()).await
}

/// Inserts a user and issues a token for it.
async fn create_user(pool: &PgPool, name: &str) -> (UserId, String) {
    let insert = "INSERT INTO users (email, full_name, password_hash) VALUES ($1 || '@example.com', $1, '$argon2id$')
                  RETURNING id";
    let id = UserId(sqlx::query_scalar(insert).bind(name).fetch_one(pool).await.expect("a user"));
    (id, Tokens::new(SECRET.as_bytes()).issue(id, Role::User).expect("a token"))
}

/// The address of a Redis, as a process reads it.
fn redis_url(url: &str) -> RedisUrl {
    RedisUrl::read(&mut EnvReader::from_pairs(&[("REDIS_URL", url)])).expect("a URL")
}

/// A client with the short time-out of production: on a busy machine, the cache may miss entries and their removals.
fn impatient_redis(url: &str) -> Redis {
    Redis::start(&redis_url(url)).expect("a client")
}

/// A client that waits until Redis has responded.
fn patient_redis(url: &str) -> Redis {
    Redis::with_timeout(&redis_url(url), PATIENT).expect("a client")
}

/// The newest version that the index received, with its item unless that version removed it.
type Newest = (i64, Option<Item>);

/// A search index in memory that follows the rule of every backend: an older version never wins.
#[derive(Clone)]
struct RecordingIndex {
    newest: Arc<Mutex<HashMap<i64, Newest>>>,
    /// A put of one of these versions waits for a permit of `gate`, after its job has read the row.
    blocked_versions: Arc<Mutex<Vec<i64>>>,
    gate: Arc<Semaphore>,
    /// Has a permit for each put that reached `gate`.
    blocked: Arc<Semaphore>,
}

impl RecordingIndex {
    fn new() -> Self {
        Self {
            newest: Arc::default(),
            blocked_versions: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
            blocked: Arc::new(Semaphore::new(0)),
        }
    }

    fn record(&self, id: ItemId, version: i64, item: Option<Item>) {
        let mut newest = self.newest.lock().unwrap();
        if newest.get(&id.0).is_none_or(|(known, _)| *known < version) {
            newest.insert(id.0, (version, item));
        }
    }

    /// The indexed items by id, without those that were removed.
    fn items(&self) -> HashMap<i64, Item> {
        let newest = self.newest.lock().unwrap();
        newest.iter().filter_map(|(id, (_, item))| Some((*id, item.clone()?))).collect()
    }
}

#[async_trait]
impl Index for RecordingIndex {
    async fn upsert(&self, item: Item) -> Result<(), Error> {
        let is_blocked = self.blocked_versions.lock().unwrap().contains(&item.version);
        if is_blocked {
            self.blocked.add_permits(1);
            self.gate.acquire().await.expect("a gate").forget();
        }
        self.record(item.id, item.version, Some(item));
        Ok(())
    }

    async fn remove(&self, id: ItemId, version: i64) -> Result<(), Error> {
        self.record(id, version, None);
        Ok(())
    }
}

/// The feature over its own database without HTTP. A test starts one [`Items`] for each process that it simulates.
struct ItemHarness {
    database: TestDatabase,
    pool: PgPool,
    queue: Queue,
    index: RecordingIndex,
    owner: UserId,
}

impl ItemHarness {
    async fn start() -> Self {
        let database = database::fresh().await;
        let pool = database.pool().await;
        let (owner, _) = create_user(&pool, "ada").await;
        Self { queue: Queue::start(pool.clone().into()), pool, database, index: RecordingIndex::new(), owner }
    }

    /// Starts the feature as one process does, with a cache in memory or in this Redis.
    fn start_items(&self, redis: Option<Redis>) -> Items {
        Items::start(&self.pool.clone().into(), &self.queue, redis, Arc::new(self.index.clone()))
    }

    fn start_worker(&self, items: &Items) -> RunningWorker {
        let shutdown = Shutdown::default();
        let registry = Registry::default().job::<IndexItem>(items.clone());
        let database = runtime::db::Database::parse(&self.database.url).expect("the harness's URL");
        RunningWorker { worker: Worker::start(&database, FAST, registry, &shutdown).expect("a worker"), shutdown }
    }

    async fn create(&self, items: &Items, title: &str) -> Item {
        items.create(self.owner, &contents(title), Origin::default()).await.expect("written").expect("an owner")
    }

    async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.pool).await.expect("a number")
    }

    async fn execute(&self, statement: &'static str) {
        sqlx::query(statement).execute(&self.pool).await.expect(statement);
    }

    fn change(&self, id: ItemId) -> Change {
        Change { id, by: self.owner, expected: Expected::Any, unwanted: None }
    }

    /// How many indexing jobs are pending, running, or waiting for a retry.
    async fn count_open_jobs(&self) -> i64 {
        self.count("SELECT count(*) FROM apalis.jobs WHERE status IN ('Pending', 'Running', 'Failed')").await
    }
}

fn contents(title: &str) -> Contents {
    Contents { title: title.into(), description: None, price_cents: Some(5) }
}

/// The title that a process returns for an item.
async fn find_title(items: &Items, id: ItemId) -> Option<String> {
    items.find(id).await.expect("no error").map(|item| item.title.clone())
}
