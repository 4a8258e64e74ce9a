//! Rate limits over HTTP: one process alone, several that share a Redis, and a Redis that fails.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use jobs::users::{Role, UserId, token::Tokens};
use runtime::{
    clients::{
        bucket::{self, Size, Taken},
        redis::{Broken, Redis as Client, RedisUrl},
    },
    config::EnvReader,
};

use crate::harness::{
    database, eventually,
    http::{HttpResponse, send},
    process::{Api, http_client},
    redis::Redis,
    scratch::Scratch,
};

const SECRET: &str = "a-secret-of-these-tests-32-bytes-long";
const QUOTA: usize = 60;

/// API processes over one database, which may share a Redis.
struct LimitHarness {
    apis: Vec<Api>,
    client: reqwest::Client,
    _database: database::TestDatabase,
    _logs: Scratch,
}

impl LimitHarness {
    async fn start(processes: usize, redis: Option<&Redis>) -> Self {
        let (database, logs) = (database::fresh().await, Scratch::new());
        let mut apis = Vec::new();
        for _ in 0..processes {
            let mut variables = vec![("JWT_SECRET", SECRET), ("ADMIN_API_KEY", "key-of-admin")];
            variables.push(("LOG_DIR", logs.to_str().expect("UTF-8")));
            variables.extend(redis.map(|redis| ("REDIS_URL", &*redis.url)));
            apis.push(Api::start(&database.url, &variables).await);
        }
        Self { apis, client: http_client(), _database: database, _logs: logs }
    }

    /// Requests an empty log export from one of the processes.
    async fn request_export(&self, process: usize, name: &'static str, credential: &str) -> HttpResponse {
        const EMPTY_RANGE: &str = "from=2024-01-15T10:30:00Z&to=2024-01-15T10:30:00Z";
        let url = format!("{}/logs/export?{EMPTY_RANGE}", self.apis[process % self.apis.len()].url);
        send(self.client.get(url).header(name, credential)).await
    }

    async fn request_export_as_admin(&self, process: usize) -> HttpResponse {
        self.request_export(process, "x-api-key", "key-of-admin").await
    }

    /// Sends requests to the processes in turn until one refuses. Returns the number of granted ones and the refusal.
    async fn exhaust_quota(&self, processes: std::ops::Range<usize>) -> (usize, HttpResponse) {
        for granted in 0..5 * QUOTA {
            let response = self.request_export_as_admin(processes.start + granted % processes.len()).await;
            if response.status != 200 {
                return (granted, response);
            }
        }
        panic!("there is no limit");
    }
}

fn assert_refused(response: &HttpResponse) -> u64 {
    response.assert_problem(429, "refused");
    let seconds = response.header("retry-after").parse().expect("seconds");
    assert!((1..=2).contains(&seconds), "{response:?}");
    assert_eq!(response.header("ratelimit-policy"), "\"admin\";q=60;w=60");
    assert_eq!(response.header("ratelimit"), format!("\"admin\";r=0;t={seconds}"));
    seconds
}

/// Asserts that a quota was granted, and at most one more for each second since `begun`.
fn assert_granted(granted: usize, quota: usize, begun: Instant) {
    let most = quota + begun.elapsed().as_secs() as usize + 1;
    assert!((quota..=most).contains(&granted), "{granted} of {quota} in {:?}", begun.elapsed());
}

/// Uses a quota up, is refused, and succeeds again after `Retry-After`.
async fn assert_one_quota(harness: &LimitHarness) {
    let begun = Instant::now();
    let first = harness.request_export_as_admin(0).await;
    assert_eq!((first.status, first.header("ratelimit-policy")), (200, "\"admin\";q=60;w=60"), "{first:?}");
    assert_eq!(first.header("ratelimit"), "\"admin\";r=59;t=1");
    let (granted, refused) = harness.exhaust_quota(0..harness.apis.len()).await;
    assert_granted(granted + 1, QUOTA, begun);
    let seconds = assert_refused(&refused);
    // Another credential has its own bucket.
    let token = Tokens::new(SECRET.as_bytes()).issue(UserId(7), Role::Admin).expect("a token");
    let other = harness.request_export(0, "authorization", &format!("Bearer {token}")).await;
    assert_eq!((other.status, other.header("ratelimit")), (200, "\"admin\";r=59;t=1"), "{other:?}");
    // The request succeeds after the promised time.
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    assert_eq!(harness.request_export_as_admin(0).await.status, 200);
}

#[tokio::test]
async fn one_process_grants_exactly_its_quota() {
    assert_one_quota(&LimitHarness::start(1, None).await).await;
}

#[tokio::test]
async fn two_processes_with_one_redis_share_one_quota() {
    let Some(redis) = Redis::start().await else { return };
    assert_one_quota(&LimitHarness::start(2, Some(&redis)).await).await;
    // Redis has one key for each credential. The key of a full bucket expires.
    assert!((1..=2).contains(&redis.keys().await));
}

#[tokio::test]
async fn without_redis_each_process_continues_from_its_own_count() {
    let Some(mut redis) = Redis::start().await else { return };
    let harness = LimitHarness::start(2, Some(&redis)).await;
    let begun = Instant::now();
    for number in 0..QUOTA / 2 {
        assert_eq!(harness.request_export_as_admin(number).await.status, 200);
    }
    redis.kill().await;
    for process in 0..2 {
        // Each process has granted a quarter of the quota itself.
        let (granted, refused) = harness.exhaust_quota(process..process + 1).await;
        assert_granted(granted, QUOTA * 3 / 4, begun);
        assert_refused(&refused);
    }
}

#[tokio::test]
async fn a_frozen_redis_fails_no_request_and_keeps_the_limit() {
    let Some(redis) = Redis::start().await else { return };
    let harness = LimitHarness::start(1, Some(&redis)).await;
    redis.freeze();
    let begun = Instant::now();
    let (granted, refused) = harness.exhaust_quota(0..1).await;
    redis.thaw();
    assert_granted(granted, QUOTA, begun);
    assert_refused(&refused);
    // At most one wait of 100 ms in each second.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// For any number of processes and tasks, and on a slow machine.
#[tokio::test]
async fn a_redis_bucket_grants_exactly_its_quota() {
    let Some(server) = Redis::start().await else { return };
    let url = RedisUrl::read(&mut EnvReader::from_pairs(&[("REDIS_URL", &server.url)])).expect("a URL");
    let processes: Vec<_> = (0..4).map(|_| Client::start(&url).expect("a client")).collect();
    for redis in &processes {
        // Waits for the connection: each attempt takes 100 ms at most.
        eventually("a response of Redis", Duration::from_secs(20), async || {
            take_tokens(redis, "millrace:limit:first", 1).await.is_ok()
        })
        .await;
    }
    let takes =
        (0..400).map(|number: usize| take_with_retry(&processes[number % processes.len()], "millrace:limit:ada", 1));
    let responses: Vec<_> = futures_util::stream::iter(takes).buffered(8).collect().await;
    let granted = responses.iter().filter(|(taken, _)| taken.granted).count();
    // Redis may have granted tokens in responses that came after the time-out.
    let late: usize = responses.iter().map(|(_, late)| late).sum();
    assert!((120 - late.min(120)..=120).contains(&granted), "{granted} granted, {late} late");
    let (refused, _) = responses.iter().rfind(|(taken, _)| !taken.granted).expect("a refusal");
    assert_eq!(refused.left, 0);
    assert!(refused.next_in <= SIZE.window / SIZE.quota && refused.full_in <= SIZE.window, "{refused:?}");
    let (other, late) = take_with_retry(&processes[0], "millrace:limit:bob", 1).await;
    assert!(other.granted && (119 - late.min(119) as u32..=119).contains(&other.left), "{other:?}, {late} late");
}

#[tokio::test]
async fn a_redis_bucket_refuses_more_than_its_quota_until_it_is_full() {
    let Some(server) = Redis::start().await else { return };
    let url = RedisUrl::read(&mut EnvReader::from_pairs(&[("REDIS_URL", &server.url)])).expect("a URL");
    let redis = Client::start(&url).expect("a client");
    let too_many = async || take_with_retry(&redis, "millrace:limit:ada", SIZE.quota + 1).await.0;
    let Taken { granted, left, full_in, .. } = too_many().await;
    assert_eq!((granted, left, full_in), (false, SIZE.quota, Duration::ZERO));
    let (taken, _) = take_with_retry(&redis, "millrace:limit:ada", 20).await;
    assert!(taken.left <= SIZE.quota - 20, "{taken:?}");
    let refused = too_many().await;
    // Redis may have granted 20 tokens more than once, in responses that came after the time-out.
    assert!(!refused.granted && refused.left <= taken.left, "{refused:?}");
    let token = SIZE.window / SIZE.quota;
    let missing = SIZE.quota - refused.left;
    assert!((token * (missing - 1)..=token * missing).contains(&refused.full_in), "{refused:?}");
    let (whole, _) = take_with_retry(&redis, "millrace:limit:bob", SIZE.quota).await;
    assert!(whole.full_in <= SIZE.window && whole.left == 0, "a full bucket grants its quota: {whole:?}");
}

/// Takes tokens, and retries on a busy machine. Returns the number of attempts that timed out too.
async fn take_with_retry(redis: &Client, key: &str, tokens: u32) -> (Taken, usize) {
    let (mut taken, mut late) = (None, 0);
    eventually("a response of Redis", Duration::from_secs(20), async || {
        match take_tokens(redis, key, tokens).await {
            Ok(response) => taken = Some(response),
            // With an open circuit breaker the client sent nothing.
            Err(Broken(reason)) => late += usize::from(!reason.contains("circuit breaker open")),
        }
        taken.is_some()
    })
    .await;
    (taken.expect("a response of Redis"), late)
}

/// A window so long that no token is refilled during a test.
const SIZE: Size = Size { quota: 120, window: Duration::from_secs(24 * 3600) };

async fn take_tokens(redis: &Client, key: &str, tokens: u32) -> Result<Taken, Broken> {
    bucket::take_tokens(redis, key, SIZE, tokens).await
}
