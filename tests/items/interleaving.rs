//! Whatever several writers do at once through two API processes while workers die: in the end everything agrees.

use std::{collections::BTreeMap, time::Duration};

use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};

use super::{ITEMS, SECRET, System, user};
use crate::harness::{
    eventually,
    http::send,
    process::{Api, start_worker},
    redis::Redis,
};

const SOON: Duration = Duration::from_secs(60);
const WRITERS: u64 = 4;
const STEPS: usize = 60;
const FAST: [(&str, &str); 3] =
    [("QUEUE_LEASE_SECONDS", "1"), ("QUEUE_HEARTBEAT_SECONDS", "0.2"), ("QUEUE_RESCUE_SECONDS", "0.1")];

/// A generator that says what it began with.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }
}

/// Ids and titles, as the table has them.
async fn table(system: &System, query: &'static str) -> BTreeMap<i64, String> {
    let rows = sqlx::query_as(query).fetch_all(&system.database.pool().await).await.expect("rows");
    rows.into_iter().collect()
}

async fn interleave(redis: Option<&Redis>) {
    let variables: Vec<(&str, &str)> = redis.map(|redis| ("REDIS_URL", &*redis.url)).into_iter().collect();
    let system = System::start(&variables).await;
    let pool = system.database.pool().await;
    let with_secret = [&[("JWT_SECRET", SECRET)], &variables[..]].concat();
    let second = Api::start(&system.database.url, &with_secret).await;
    let (_, token) = user(&pool, "Ada").await;
    let urls = [system.api.url.clone(), second.url.clone()];
    let seed = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_nanos() as u64 | 1;
    eprintln!("seed {seed}");

    let worker_variables = [&FAST[..], &variables[..]].concat();
    let first = start_worker(&system.database.url, &worker_variables).await;
    let writers = (0..WRITERS).map(|number| {
        let (client, urls, token) = (system.client.clone(), urls.clone(), token.clone());
        let mut dice = Dice(seed.wrapping_mul(2 * number + 1));
        tokio::spawn(async move {
            for step in 0..STEPS {
                let url = format!("{}{ITEMS}", urls[dice.roll(2)]);
                // Few ids, so that the writers meet.
                let one = format!("{url}/{}", 1 + dice.roll(12));
                let body = json!({"title": format!("title of writer {number} in step {step}")});
                let request = match dice.roll(8) {
                    0 | 1 => client.request(Method::POST, &url).json(&body),
                    2..=4 => client.request(Method::PUT, &one).json(&body),
                    5 => client.request(Method::DELETE, &one),
                    _ => client.request(Method::GET, &one),
                };
                let answer = send(request.bearer_auth(&token)).await;
                assert!([200, 201, 204, 404].contains(&answer.status), "{answer:?}");
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    eventually("some are written", SOON, async || {
        super::count(&pool, "SELECT count(*) FROM apalis.jobs WHERE job_type = 'index_item'").await > 20
    })
    .await;
    first.signal(Signal::SIGKILL);
    if let Some(redis) = redis {
        redis.flush().await;
    }
    let _heir = start_worker(&system.database.url, &worker_variables).await;
    for writer in writers {
        writer.await.expect("a writer's end");
    }
    eventually("nothing is left to index", SOON, async || {
        super::count(&pool, "SELECT count(*) FROM apalis.jobs WHERE status <> 'Done'").await == 0
    })
    .await;

    let items = table(&system, "SELECT id, title FROM items").await;
    assert!(!items.is_empty());
    let highest = *items.keys().max().expect("an item");
    let shown = async |url: &str| {
        let mut shown = BTreeMap::new();
        for id in 1..=highest + 5 {
            let answer = send(system.client.get(format!("{url}{ITEMS}/{id}"))).await;
            if answer.status == 200 {
                shown.insert(id, answer.json()["title"].as_str().expect("a title").to_owned());
            }
        }
        shown
    };
    for url in &urls {
        if redis.is_some() {
            assert_eq!(shown(url).await, items, "the cache, at once");
        } else {
            eventually("the caches agree with the table", Duration::from_secs(10), async || shown(url).await == items)
                .await;
        }
    }
    let found = send(system.call(Method::GET, "/api/v1/search/items?q=title&limit=100")).await.json();
    let hits = found["items"].as_array().expect("hits");
    let found: BTreeMap<i64, String> = hits
        .iter()
        .map(|hit: &Value| (hit["id"].as_i64().unwrap(), hit["title"].as_str().unwrap().to_owned()))
        .collect();
    let newest: BTreeMap<_, _> = items.iter().map(|(id, title)| (*id, title.clone())).collect();
    assert!(items.len() <= 100, "more than one page of hits: {}", items.len());
    assert_eq!(found, newest, "the search");
}

#[tokio::test]
async fn search_and_caches_agree_with_the_table_in_the_end() {
    interleave(None).await;
}

#[tokio::test]
async fn search_and_redis_agree_with_the_table_in_the_end() {
    let Some(redis) = Redis::start().await else { return };
    interleave(Some(&redis)).await;
}
