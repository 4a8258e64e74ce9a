//! Items from outside, over HTTP; and the feature itself over both caches, with a search that records.

mod caches;
mod crud;
mod indexing;
mod interleaving;
mod names;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use futures_util::{FutureExt, future::BoxFuture};
use jobs::{
    boot::shutdown::Shutdown,
    config::Vars,
    error::Error,
    items::{
        Change, Contents, Expected, Item, ItemId, Items,
        index::{Index, IndexItem},
    },
    queue::{Origin, Queue, Registry, Worker},
    remote::{self, redis::RedisUrl},
    users::{Role, UserId, token::Tokens},
};
use reqwest::{Client, Method, RequestBuilder};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::sync::Semaphore;

use crate::harness::{
    database::{self, TestDatabase},
    process::{self, Api},
    stage::{FAST, Running},
};

const SECRET: &str = "a secret of the tests, 32 bytes long or more";
const ITEMS: &str = "/api/v1/items";

/// An API process over a database of its own.
struct System {
    api: Api,
    client: Client,
    database: TestDatabase,
}

impl System {
    async fn start(variables: &[(&str, &str)]) -> Self {
        let database = database::fresh().await;
        let variables = [&[("JWT_SECRET", SECRET)], variables].concat();
        Self { api: Api::start(&database.url, &variables).await, client: process::client(), database }
    }

    fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.api.url))
    }

    /// The value of a metric's one series.
    async fn metric(&self, series: &str) -> u64 {
        let text = crate::harness::http::ask(self.call(Method::GET, "/metrics")).await.text;
        let line =
            text.lines().find_map(|line| line.strip_prefix(series)).unwrap_or_else(|| panic!("{series}:\n{text}"));
        line.trim().parse().expect("a number")
    }
}

/// Registers a user, and logs it in.
async fn user(pool: &PgPool, name: &str) -> (UserId, String) {
    let insert = "INSERT INTO users (email, full_name, password_hash) VALUES ($1 || '@example.com', $1, '$argon2id$')
                  RETURNING id";
    let id = UserId(sqlx::query_scalar(insert).bind(name).fetch_one(pool).await.expect("a user"));
    (id, Tokens::new(SECRET.as_bytes()).issue(id, Role::User).expect("a token"))
}

/// The one number that this question is answered with.
async fn count(pool: &PgPool, question: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(question.to_owned())).fetch_one(pool).await.expect("an answer")
}

/// The newest version that a search was told of, and what it finds of it.
type Known = (i64, Option<Item>);

/// A search that remembers what it is told, by the rule that all follow: no older version wins.
#[derive(Clone)]
struct Recorder {
    known: Arc<Mutex<HashMap<i64, Known>>>,
    /// A put of one of these versions waits for a permit of `gate`, after its job has read the row.
    held: Arc<Mutex<Vec<i64>>>,
    gate: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Recorder {
    fn new() -> Self {
        Self {
            known: Arc::default(),
            held: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
            waiting: Arc::new(Semaphore::new(0)),
        }
    }

    fn tell(&self, id: ItemId, version: i64, item: Option<Item>) {
        let mut known = self.known.lock().unwrap();
        if known.get(&id.0).is_none_or(|(held, _)| *held < version) {
            known.insert(id.0, (version, item));
        }
    }

    /// What it finds.
    fn found(&self) -> HashMap<i64, Item> {
        let known = self.known.lock().unwrap();
        known.iter().filter_map(|(id, (_, item))| Some((*id, item.clone()?))).collect()
    }
}

impl Index for Recorder {
    fn upsert(&self, item: Item) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            let holds = self.held.lock().unwrap().contains(&item.version);
            if holds {
                self.waiting.add_permits(1);
                self.gate.acquire().await.expect("a gate").forget();
            }
            self.tell(item.id, item.version, Some(item));
            Ok(())
        }
        .boxed()
    }

    fn remove(&self, id: ItemId, version: i64) -> BoxFuture<'_, Result<(), Error>> {
        self.tell(id, version, None);
        async { Ok(()) }.boxed()
    }
}

/// The feature over a database of its own, without HTTP: as many processes' worth of it as a test wants.
struct Shop {
    database: TestDatabase,
    pool: PgPool,
    queue: Queue,
    recorder: Recorder,
    owner: UserId,
}

impl Shop {
    async fn open() -> Self {
        let database = database::fresh().await;
        let pool = database.pool().await;
        let (owner, _) = user(&pool, "ada").await;
        Self { queue: Queue::start(pool.clone()), pool, database, recorder: Recorder::new(), owner }
    }

    /// What one process has, with its own cache or the one in this Redis.
    fn process(&self, redis: Option<&str>) -> Items {
        let pairs: Vec<(&str, &str)> = redis.map(|url| ("REDIS_URL", url)).into_iter().collect();
        let url = RedisUrl::read(&mut Vars::from_pairs(&pairs));
        assert_eq!(url.is_some(), redis.is_some());
        let redis = url.map(|url| remote::redis::Redis::start(&url).expect("a client"));
        Items::start(&self.pool, &self.queue, redis, Arc::new(self.recorder.clone()))
    }

    fn worker(&self, items: &Items) -> Running {
        let shutdown = Shutdown::default();
        let registry = Registry::default().job::<IndexItem>(items.clone());
        let database = jobs::boot::db::Database::parse(&self.database.url).expect("the harness's URL");
        Running { worker: Worker::start(&database, FAST, registry, &shutdown).expect("a worker"), shutdown }
    }

    async fn create(&self, items: &Items, title: &str) -> Item {
        items.create(self.owner, &contents(title), Origin::default()).await.expect("written").expect("an owner")
    }

    fn change(&self, id: ItemId) -> Change {
        Change { id, by: self.owner, expected: Expected::Any, unwanted: None }
    }

    /// How many indexing jobs have not ended.
    async fn left(&self) -> i64 {
        count(&self.pool, "SELECT count(*) FROM apalis.jobs WHERE status IN ('Pending', 'Running', 'Failed')").await
    }
}

fn contents(title: &str) -> Contents {
    Contents { title: title.into(), description: None, price_cents: Some(5) }
}

/// The title that this process shows.
async fn title(items: &Items, id: ItemId) -> Option<String> {
    items.find(id).await.expect("found out").map(|item| item.title.clone())
}
