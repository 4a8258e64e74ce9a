//! API processes' worth of prices over a database of a test's own, with its sources and its clock.

use std::{sync::Arc, time::Duration};

use api::{config::ApiConfig, program::serve};
use jobs::{
    app::{self, App},
    boot::{db::Database, shutdown::Shutdown},
    config::EnvReader,
    prices::{Prices, ages::Ages, model::Source, providers::Providers},
    queue::Queue,
    remote::redis::Redis,
    users::{Role, UserId, token::Tokens},
};
use reqwest::Client;
use serde_json::Value;
use sqlx::PgPool;
use tokio::{net::TcpListener, task::JoinHandle};

use super::market::Market;
use crate::harness::{
    database::{self, TestDatabase},
    http::{HttpResponse, send},
    process,
};

pub const KEY: &str = "the key of the tests";
pub const ADMIN_KEY: &str = "the other key of the tests";
const SECRET: &str = "a secret of the tests, 32 bytes long or more";
pub const STALE: &str = "110 - \"Response is Stale\"";

/// A database and sources, on which any number of API processes' worth of the feature stands.
pub struct Stand {
    pub database: TestDatabase,
    pub market: Arc<Market>,
    /// How long Redis is waited for; longer than it is in production, where the machine may be busy with other tests.
    pub patience: Duration,
}

/// An API of this process, with a cache of its own or one in Redis.
pub struct Node {
    pub url: String,
    pub client: Client,
    pub prices: Prices,
    /// Closed, the database is out of reach.
    pub pool: PgPool,
    shutdown: Shutdown,
    serving: JoinHandle<()>,
}

impl Stand {
    pub async fn new() -> Self {
        Self { database: database::fresh().await, market: Arc::new(Market::new()), patience: Duration::from_secs(10) }
    }

    pub async fn node(&self, redis: Option<&str>) -> Node {
        // On a busy machine even a fast source may be silent for a second.
        self.node_with(redis, Ages { hedge: Duration::from_secs(10), ..Ages::SHIPPED }).await
    }

    pub async fn node_with(&self, redis: Option<&str>, ages: Ages) -> Node {
        let providers = Providers(Arc::new(self.market.sources()));
        self.node_of("coingecko,kraken", providers, redis, ages).await
    }

    /// A node with one of the two providers.
    pub async fn node_with_only(&self, source: Source, redis: Option<&str>) -> Node {
        let sources = self.market.sources().into_iter().filter(|provider| provider.source() == source);
        self.node_of(source.as_str(), Providers(sources.collect()), redis, Ages::SHIPPED).await
    }

    /// A node with these providers, whose names are also given as `CRYPTO_PROVIDERS`.
    pub async fn node_of(&self, names: &str, providers: Providers, redis: Option<&str>, ages: Ages) -> Node {
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
        let redis = jobs.redis.as_ref().map(|url| Redis::patient(url, self.patience).expect("a client"));
        let clock = self.market.clock();
        let prices = Prices::with(&pool, &Queue::start(pool.clone()), &jobs.prices, redis, providers, ages, clock);
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
    pub async fn get(&self, path: &str) -> HttpResponse {
        send(self.client.get(format!("{}{path}", self.url)).header("x-api-key", KEY)).await
    }

    /// What a good answer shows, and whether it is marked as stale. It lacks nothing.
    pub async fn shown(&self, path: &str) -> (Value, bool) {
        let (shown, stale, missing) = self.shown_with_missing(path).await;
        assert_eq!(missing, 0, "{path}: {shown}");
        (shown, stale)
    }

    /// What a good answer shows, whether it is marked as stale, and how many points it says that it lacks.
    pub async fn shown_with_missing(&self, path: &str) -> (Value, bool, usize) {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let warnings: Vec<&str> = answer.header("warning").split(", ").filter(|warning| !warning.is_empty()).collect();
        let (stale, others): (Vec<_>, Vec<_>) = warnings.into_iter().partition(|warning| *warning == STALE);
        let missing = others.iter().map(|warning| {
            let text = warning.strip_prefix("199 - \"").and_then(|text| text.strip_suffix('"'));
            let (count, rest) = text.and_then(|text| text.split_once(' ')).unwrap_or_default();
            assert!(["point is missing", "points are missing"].contains(&rest), "{path}: {answer:?}");
            count.parse::<usize>().expect("a number")
        });
        let missing: Vec<_> = missing.collect();
        assert!(stale.len() <= 1 && missing.len() <= 1, "{path}: {answer:?}");
        (answer.json(), stale.len() == 1, missing.first().copied().unwrap_or(0))
    }

    /// The buckets and prices of a chart that lacks nothing, and whether it is marked as stale.
    pub async fn chart(&self, query: &str) -> (Vec<(i64, String)>, bool) {
        let (prices, stale, missing) = self.chart_with_missing(query).await;
        assert_eq!(missing, 0, "{query}: {prices:?}");
        (prices, stale)
    }

    /// The buckets and prices of a chart, whether it is marked as stale, and how many points it says that it lacks.
    pub async fn chart_with_missing(&self, query: &str) -> (Vec<(i64, String)>, bool, usize) {
        let (shown, stale, missing) = self.shown_with_missing(&format!("/market_chart?{query}")).await;
        let prices = shown["prices"].as_array().expect("a list").iter().map(|point| {
            assert_eq!(point.as_array().map(Vec::len), Some(2), "{point}");
            (point[0].as_i64().expect("a time"), point[1].as_str().expect("a text").to_owned())
        });
        (prices.collect(), stale, missing)
    }

    pub async fn stop(self) {
        self.shutdown.drain.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.serving).await.expect("it stops").expect("no panic");
    }
}

pub fn token(role: Role) -> String {
    Tokens::new(SECRET.as_bytes()).issue(UserId(7), role).expect("a token")
}
