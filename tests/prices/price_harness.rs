//! The harness of price tests: API nodes in this process over a fresh database, in-memory providers and a test clock.

use std::{sync::Arc, time::Duration};

use api::{config::ApiConfig, program::serve};
use jobs::{
    app::{self, App},
    prices::{Prices, ages::Ages, model::ProviderId, providers::Providers},
    users::{Role, UserId, token::Tokens},
};
use queue::Queue;
use reqwest::Client;
use runtime::{clients::redis::Redis, config::EnvReader, db::Database, shutdown::Shutdown};
use serde_json::Value;
use sqlx::PgPool;
use tokio::{net::TcpListener, task::JoinHandle};

use super::in_memory::InMemoryProviders;
use crate::harness::{
    database::{self, TestDatabase},
    http::{HttpResponse, send},
    process,
};

pub(super) const KEY: &str = "the key of the tests";
pub(super) const ADMIN_KEY: &str = "the other key of the tests";
const SECRET: &str = "a secret of the tests, 32 bytes long or more";
pub(super) const STALE: &str = "110 - \"Response is Stale\"";
/// Limits that a busy machine keeps: even a fast provider may need seconds there.
pub(super) const PATIENT: Ages =
    Ages { hedge: Duration::from_secs(10), max_wait: Duration::from_secs(20), ..Ages::DEFAULT };

/// A database and providers. Any number of nodes run over them.
pub(super) struct PriceHarness {
    pub database: TestDatabase,
    pub providers: Arc<InMemoryProviders>,
    /// The time-out of Redis. Longer than in production, because other tests may load the machine.
    pub redis_timeout: Duration,
}

/// An API node in this process, with its own cache or one in Redis.
pub(super) struct Node {
    pub url: String,
    pub client: Client,
    pub prices: Prices,
    /// The pool of the node. Closing it makes the database unavailable.
    pub pool: PgPool,
    shutdown: Shutdown,
    serving: JoinHandle<()>,
}

impl PriceHarness {
    pub(super) async fn new() -> Self {
        Self {
            database: database::fresh().await,
            providers: Arc::new(InMemoryProviders::new()),
            redis_timeout: Duration::from_secs(10),
        }
    }

    pub(super) async fn node(&self, redis: Option<&str>) -> Node {
        self.node_with(redis, PATIENT).await
    }

    pub(super) async fn node_with(&self, redis: Option<&str>, ages: Ages) -> Node {
        let providers = Providers(Arc::new(self.providers.all()));
        self.node_of("coingecko,kraken", providers, redis, ages).await
    }

    /// Starts a node with one of the two providers.
    pub(super) async fn node_with_only(&self, id: ProviderId, redis: Option<&str>) -> Node {
        let provider = self.providers.all().into_iter().filter(|provider| provider.id() == id);
        self.node_of(id.as_str(), Providers(provider.collect()), redis, PATIENT).await
    }

    /// Starts a node with these providers, whose names are also set as `CRYPTO_PROVIDERS`.
    pub(super) async fn node_of(&self, names: &str, providers: Providers, redis: Option<&str>, ages: Ages) -> Node {
        let mut pairs = vec![
            ("API_KEY", KEY),
            ("ADMIN_API_KEY", ADMIN_KEY),
            ("JWT_SECRET", SECRET),
            ("CRYPTO_CURRENCIES", "usd,eur"),
            ("RATE_LIMIT", "100000/60s"),
        ];
        pairs.push(("CRYPTO_PROVIDERS", names));
        pairs.extend(redis.map(|url| ("REDIS_URL", url)));
        let mut vars = EnvReader::from_pairs(&pairs);
        let (config, jobs) = (ApiConfig::read(&mut vars), app::Config::read(&mut vars));
        let (config, jobs) = vars.finish((config, jobs)).expect("a configuration");
        let (database, shutdown) = (Database::parse(&self.database.url).expect("a URL"), Shutdown::default());
        let mut app = App::start(&database, &jobs, "api", &shutdown.drain).expect("an app");
        let pool = self.database.pool().await;
        let redis = jobs.redis.as_ref().map(|url| Redis::with_timeout(url, self.redis_timeout).expect("a client"));
        let clock = self.providers.clock();
        let prices = Prices::with_parts(
            &pool.clone().into(),
            &Queue::start(pool.clone().into()),
            &jobs.prices,
            redis,
            providers,
            ages,
            clock,
        );
        app.prices = prices.clone();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let serving = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { serve(listener, app.clone(), &config, app.metrics(String::new), &shutdown).await }
        });
        Node { url, client: process::http_client(), prices, pool, shutdown, serving }
    }
}

impl Node {
    pub(super) async fn get(&self, path: &str) -> HttpResponse {
        send(self.client.get(format!("{}{path}", self.url)).header("x-api-key", KEY)).await
    }

    /// Reads a complete 200 response: its body, and whether it is marked as stale.
    pub(super) async fn read(&self, path: &str) -> (Value, bool) {
        let (shown, stale, missing) = self.read_with_missing(path).await;
        assert_eq!(missing, 0, "{path}: {shown}");
        (shown, stale)
    }

    /// Reads a 200 response: its body, whether it is marked as stale, and how many points are missing.
    pub(super) async fn read_with_missing(&self, path: &str) -> (Value, bool, usize) {
        let response = self.get(path).await;
        assert_eq!(response.status, 200, "{path}: {response:?}");
        let warnings: Vec<&str> =
            response.header("warning").split(", ").filter(|warning| !warning.is_empty()).collect();
        let (stale, others): (Vec<_>, Vec<_>) = warnings.into_iter().partition(|warning| *warning == STALE);
        let missing = others.iter().map(|warning| {
            let text = warning.strip_prefix("199 - \"").and_then(|text| text.strip_suffix('"'));
            let (count, rest) = text.and_then(|text| text.split_once(' ')).unwrap_or_default();
            assert!(["point is missing", "points are missing"].contains(&rest), "{path}: {response:?}");
            count.parse::<usize>().expect("a number")
        });
        let missing: Vec<_> = missing.collect();
        assert!(stale.len() <= 1 && missing.len() <= 1, "{path}: {response:?}");
        (response.json(), stale.len() == 1, missing.first().copied().unwrap_or(0))
    }

    /// Reads a complete chart: its points, and whether it is marked as stale.
    pub(super) async fn chart(&self, query: &str) -> (Vec<(i64, String)>, bool) {
        let (prices, stale, missing) = self.chart_with_missing(query).await;
        assert_eq!(missing, 0, "{query}: {prices:?}");
        (prices, stale)
    }

    /// Reads a chart: its points, whether it is marked as stale, and how many points are missing.
    pub(super) async fn chart_with_missing(&self, query: &str) -> (Vec<(i64, String)>, bool, usize) {
        let (shown, stale, missing) = self.read_with_missing(&format!("/market_chart?{query}")).await;
        let prices = shown["prices"].as_array().expect("a list").iter().map(|point| {
            assert_eq!(point.as_array().map(Vec::len), Some(2), "{point}");
            (point[0].as_i64().expect("a time"), point[1].as_str().expect("a text").to_owned())
        });
        (prices.collect(), stale, missing)
    }

    pub(super) async fn stop(self) {
        self.shutdown.drain.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.serving).await.expect("it stops").expect("no panic");
    }
}

pub(super) fn token(role: Role) -> String {
    Tokens::new(SECRET.as_bytes()).issue(UserId(7), role).expect("a token")
}
