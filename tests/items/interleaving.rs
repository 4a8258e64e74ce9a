//! Concurrent writers through two API processes while a worker is killed: search, caches and table agree in the end.

use std::{collections::BTreeMap, time::Duration};

use nix::sys::signal::Signal;
use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::{ITEMS, SECRET, create_user, start};
use crate::harness::{
    eventually,
    http::send,
    process::{Api, start_worker},
    redis::Redis,
    system::System,
};

const SOON: Duration = Duration::from_secs(60);
const WRITERS: u64 = 4;
const STEPS: usize = 60;
const FAST: [(&str, &str); 3] =
    [("QUEUE_LEASE_SECONDS", "1"), ("QUEUE_HEARTBEAT_SECONDS", "0.2"), ("QUEUE_RESCUE_SECONDS", "0.1")];

/// A pseudo-random generator (xorshift64), reproducible by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// Ids and titles that a query returns.
async fn select_titles(system: &System, query: &'static str) -> BTreeMap<i64, String> {
    let rows = sqlx::query_as(query).fetch_all(&system.database.pool().await).await.expect("rows");
    rows.into_iter().collect()
}

/// Creates, replaces, deletes and reads random items through both API processes.
async fn write_items(number: u64, seed: u64, client: Client, urls: [String; 2], token: String) {
    let mut random = Random(seed.wrapping_mul(2 * number + 1));
    for step in 0..STEPS {
        let url = format!("{}{ITEMS}", urls[random.below(2)]);
        // Few ids, so that the writers collide.
        let one = format!("{url}/{}", 1 + random.below(12));
        let body = json!({"title": format!("title of writer {number} in step {step}")});
        let request = match random.below(8) {
            0 | 1 => client.request(Method::POST, &url).json(&body),
            2..=4 => client.request(Method::PUT, &one).json(&body),
            5 => client.request(Method::DELETE, &one),
            _ => client.request(Method::GET, &one),
        };
        let response = send(request.bearer_auth(&token)).await;
        assert!([200, 201, 204, 404].contains(&response.status), "{response:?}");
    }
}

async fn run_interleaved_writers(redis: Option<&Redis>) {
    let variables: Vec<(&str, &str)> = redis.map(|redis| ("REDIS_URL", &*redis.url)).into_iter().collect();
    let system = start(&variables).await;
    let pool = system.database.pool().await;
    let with_secret = [&[("JWT_SECRET", SECRET)], &variables[..]].concat();
    let second = Api::start(&system.database.url, &with_secret).await;
    let (_, token) = create_user(&pool, "Ada").await;
    let urls = [system.api.url.clone(), second.url.clone()];
    let seed = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_nanos() as u64 | 1;
    eprintln!("seed {seed}");

    let worker_variables = [&FAST[..], &variables[..]].concat();
    let first_worker = start_worker(&system.database.url, &worker_variables).await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| tokio::spawn(write_items(number, seed, system.client.clone(), urls.clone(), token.clone())))
        .collect();
    eventually("more than 20 jobs are enqueued", SOON, async || {
        system.count("SELECT count(*) FROM apalis.jobs WHERE job_type = 'index_item'").await > 20
    })
    .await;
    first_worker.signal(Signal::SIGKILL);
    if let Some(redis) = redis {
        redis.flush().await;
    }
    let _second_worker = start_worker(&system.database.url, &worker_variables).await;
    for writer in writers {
        writer.await.expect("the writer finishes");
    }
    eventually("no indexing job is open", SOON, async || {
        system.count("SELECT count(*) FROM apalis.jobs WHERE status <> 'Done'").await == 0
    })
    .await;

    let items = select_titles(&system, "SELECT id, title FROM items").await;
    assert!(!items.is_empty());
    let highest = *items.keys().max().expect("an item");
    let read_titles = async |url: &str| {
        let mut titles = BTreeMap::new();
        for id in 1..=highest + 5 {
            let response = send(system.client.get(format!("{url}{ITEMS}/{id}"))).await;
            if response.status == 200 {
                titles.insert(id, response.json()["title"].as_str().expect("a title").to_owned());
            }
        }
        titles
    };
    for url in &urls {
        if redis.is_some() {
            assert_eq!(read_titles(url).await, items, "Redis agrees at once");
        } else {
            // An old item may be read at the beginning of a pass, and a pass of some 70 requests may take seconds.
            eventually("the caches agree with the table", SOON, async || read_titles(url).await == items).await;
        }
    }
    let results = send(system.get("/api/v1/search/items?q=title&limit=100")).await.json();
    let hits = results["items"].as_array().expect("hits");
    let found: BTreeMap<i64, String> = hits
        .iter()
        .map(|hit: &Value| (hit["id"].as_i64().unwrap(), hit["title"].as_str().unwrap().to_owned()))
        .collect();
    let newest: BTreeMap<_, _> = items.iter().map(|(id, title)| (*id, title.clone())).collect();
    assert!(items.len() <= 100, "the hits fit on one page: {}", items.len());
    assert_eq!(found, newest, "the search agrees with the table");
}

#[tokio::test]
async fn search_and_memory_caches_converge_to_the_table() {
    run_interleaved_writers(None).await;
}

#[tokio::test]
async fn search_and_redis_converge_to_the_table() {
    let Some(redis) = Redis::start().await else { return };
    run_interleaved_writers(Some(&redis)).await;
}
