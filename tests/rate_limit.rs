//! Limits over HTTP, driven to their edge: one process alone, several with one Redis, and without it in the middle.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use jobs::{
    config::Vars,
    remote::{
        bucket::{self, Size, Taken},
        redis::{Broken, Redis as Client, RedisUrl},
    },
    users::{Role, UserId, token::Tokens},
};

use crate::harness::{
    database, eventually,
    http::{Answer, ask},
    process::{Api, client},
    redis::Redis,
    scratch::Scratch,
};

const SECRET: &str = "a-secret-of-these-tests-32-bytes-long";
const QUOTA: usize = 60;

/// Processes that may share a Redis.
struct System {
    apis: Vec<Api>,
    client: reqwest::Client,
    _database: database::TestDatabase,
    _logs: Scratch,
}

impl System {
    async fn start(processes: usize, redis: Option<&Redis>) -> Self {
        let (database, logs) = (database::fresh().await, Scratch::new());
        let mut apis = Vec::new();
        for _ in 0..processes {
            let mut variables = vec![("JWT_SECRET", SECRET), ("ADMIN_API_KEY", "key-of-admin")];
            variables.push(("LOG_DIR", logs.to_str().expect("UTF-8")));
            variables.extend(redis.map(|redis| ("REDIS_URL", &*redis.url)));
            apis.push(Api::start(&database.url, &variables).await);
        }
        Self { apis, client: client(), _database: database, _logs: logs }
    }

    /// Asks one of the processes for an export of nothing.
    async fn ask(&self, process: usize, name: &'static str, credential: &str) -> Answer {
        const NOTHING: &str = "from=2024-01-15T10:30:00Z&to=2024-01-15T10:30:00Z";
        let url = format!("{}/logs/export?{NOTHING}", self.apis[process % self.apis.len()].url);
        ask(self.client.get(url).header(name, credential)).await
    }

    async fn ask_as_admin(&self, process: usize) -> Answer {
        self.ask(process, "x-api-key", "key-of-admin").await
    }

    /// Asks the processes in turn until one refuses; how many were granted meanwhile.
    async fn drain(&self, processes: std::ops::Range<usize>) -> (usize, Answer) {
        for granted in 0..5 * QUOTA {
            let answer = self.ask_as_admin(processes.start + granted % processes.len()).await;
            if answer.status != 200 {
                return (granted, answer);
            }
        }
        panic!("there is no limit");
    }
}

fn assert_refused(answer: &Answer) -> u64 {
    answer.assert_problem(429, "refused");
    let seconds = answer.header("retry-after").parse().expect("seconds");
    assert!((1..=2).contains(&seconds), "{answer:?}");
    assert_eq!(answer.header("ratelimit-policy"), "\"admin\";q=60;w=60");
    assert_eq!(answer.header("ratelimit"), format!("\"admin\";r=0;t={seconds}"));
    seconds
}

/// So many at the least, and one more for each second that it took.
fn assert_granted(granted: usize, quota: usize, begun: Instant) {
    let most = quota + begun.elapsed().as_secs() as usize + 1;
    assert!((quota..=most).contains(&granted), "{granted} of {quota} in {:?}", begun.elapsed());
}

/// To the edge, over it, and back.
async fn has_one_quota(system: &System) {
    let begun = Instant::now();
    let first = system.ask_as_admin(0).await;
    assert_eq!((first.status, first.header("ratelimit-policy")), (200, "\"admin\";q=60;w=60"), "{first:?}");
    assert_eq!(first.header("ratelimit"), "\"admin\";r=59;t=1");
    let (granted, refused) = system.drain(0..system.apis.len()).await;
    assert_granted(granted + 1, QUOTA, begun);
    let seconds = assert_refused(&refused);
    // Another credential has a bucket of its own.
    let token = Tokens::new(SECRET.as_bytes()).issue(UserId(7), Role::Admin).expect("a token");
    let other = system.ask(0, "authorization", &format!("Bearer {token}")).await;
    assert_eq!((other.status, other.header("ratelimit")), (200, "\"admin\";r=59;t=1"), "{other:?}");
    // What was promised.
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    assert_eq!(system.ask_as_admin(0).await.status, 200);
}

#[tokio::test]
async fn a_process_alone_grants_a_quota_and_no_more() {
    has_one_quota(&System::start(1, None).await).await;
}

#[tokio::test]
async fn two_processes_with_one_redis_grant_a_quota_together_and_no_more() {
    let Some(redis) = Redis::start().await else { return };
    has_one_quota(&System::start(2, Some(&redis)).await).await;
    // A bucket for each credential, and nothing else; one that is full again goes.
    assert!((1..=2).contains(&redis.keys().await));
}

#[tokio::test]
async fn when_redis_dies_each_process_goes_on_with_what_it_has_granted() {
    let Some(mut redis) = Redis::start().await else { return };
    let system = System::start(2, Some(&redis)).await;
    let begun = Instant::now();
    for number in 0..QUOTA / 2 {
        assert_eq!(system.ask_as_admin(number).await.status, 200);
    }
    redis.kill().await;
    for process in 0..2 {
        // It has granted a quarter of them itself.
        let (granted, refused) = system.drain(process..process + 1).await;
        assert_granted(granted, QUOTA * 3 / 4, begun);
        assert_refused(&refused);
    }
}

#[tokio::test]
async fn a_frozen_redis_fails_nothing_and_opens_nothing() {
    let Some(redis) = Redis::start().await else { return };
    let system = System::start(1, Some(&redis)).await;
    redis.freeze();
    let begun = Instant::now();
    let (granted, refused) = system.drain(0..1).await;
    redis.thaw();
    assert_granted(granted, QUOTA, begun);
    assert_refused(&refused);
    // One wait of a tenth of a second for each second.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// Whatever the number of processes and of tasks, and however slow the machine is.
#[tokio::test]
async fn a_bucket_in_redis_is_exact() {
    let Some(server) = Redis::start().await else { return };
    let url = RedisUrl::read(&mut Vars::from_pairs(&[("REDIS_URL", &server.url)])).expect("a URL");
    let processes: Vec<_> = (0..4).map(|_| Client::start(&url).expect("a client")).collect();
    for redis in &processes {
        // Connected: this waits for a tenth of a second at most.
        eventually("an answer", Duration::from_secs(20), async || take(redis, "millrace:limit:first").await.is_ok())
            .await;
    }
    let takes = (0..400).map(|number: usize| answered(&processes[number % processes.len()], "millrace:limit:ada"));
    let answers: Vec<_> = futures_util::stream::iter(takes).buffered(8).collect().await;
    let granted = answers.iter().filter(|(taken, _)| taken.granted).count();
    // Redis may have granted what came too late to be waited for.
    let late: usize = answers.iter().map(|(_, late)| late).sum();
    assert!((120 - late.min(120)..=120).contains(&granted), "{granted} granted, {late} late");
    let (refused, _) = answers.iter().rfind(|(taken, _)| !taken.granted).expect("a refusal");
    assert_eq!(refused.left, 0);
    assert!(refused.next_in <= SIZE.window / SIZE.quota && refused.full_in <= SIZE.window, "{refused:?}");
    let (other, late) = answered(&processes[0], "millrace:limit:bob").await;
    assert!(other.granted && (119 - late.min(119) as u32..=119).contains(&other.left), "{other:?}, {late} late");
}

/// Asks until there is an answer; and how often there was none, on a machine that is busy.
async fn answered(redis: &Client, key: &str) -> (Taken, usize) {
    let (mut taken, mut late) = (None, 0);
    eventually("an answer", Duration::from_secs(20), async || {
        match take(redis, key).await {
            Ok(answer) => taken = Some(answer),
            // Nothing was sent, when it was left alone.
            Err(Broken(why)) => late += usize::from(!why.contains("circuit breaker open")),
        }
        taken.is_some()
    })
    .await;
    (taken.expect("an answer"), late)
}

/// So slow that no token comes back meanwhile.
const SIZE: Size = Size { quota: 120, window: Duration::from_secs(24 * 3600) };

async fn take(redis: &Client, key: &str) -> Result<Taken, Broken> {
    bucket::take_token(redis, key, SIZE).await
}
