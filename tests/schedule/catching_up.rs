//! What was missed is made up by policy, and what fails is tried again.

use std::{sync::atomic::Ordering, time::Duration};

use jobs::schedule::{CatchUp, Timing};
use sqlx::PgPool;
use time::OffsetDateTime;

use super::{Fired, Ground, SOON, Ticking, assert_each_second};
use crate::harness::eventually;

/// Nothing counts as on time: a test need not wait until something is late.
const STRICT: Timing = Timing { look: Duration::from_secs(60), again: Duration::from_millis(50), late: Duration::ZERO };

/// What fires of a schedule each hour whose workers were all killed three hours ago.
async fn after_three_hours(policy: CatchUp) -> (OffsetDateTime, Vec<Fired>) {
    let ground = Ground::new().await;
    let dead = Ticking::start(ground.schedules("0 0 * * * *", policy), STRICT);
    eventually("it is known", SOON, async || ground.value::<i64>("SELECT count(*) FROM schedules").await == 1).await;
    // As a killed process leaves it.
    dead.task.abort();
    ground.execute("UPDATE schedules SET since = date_trunc('hour', since) - interval '3 hours'").await;
    let since = ground.value("SELECT since FROM schedules").await;
    // Two of them, started at once.
    let start = || Ticking::start(ground.schedules("0 0 * * * *", policy), STRICT);
    let ticking = [start(), start()];
    let least = if policy == CatchUp::All { 3 } else { 1 };
    ground.fired(least).await;
    for worker in ticking {
        worker.stop().await;
    }
    ground.assert_jobs().await;
    (since, ground.fires().await)
}

/// How many hours lie between.
fn hours(since: OffsetDateTime, fire: &Fired) -> i32 {
    i32::try_from((fire.fire_time - since).whole_hours()).unwrap()
}

#[tokio::test]
async fn skip_makes_nothing_up_and_says_so() {
    let (since, fires) = after_three_hours(CatchUp::Skip).await;
    assert_eq!((fires[0].kind.as_str(), fires[0].jobs), ("skipped", 0));
    assert_eq!(fires[0].passed_over + 1, hours(since, &fires[0]));
}

#[tokio::test]
async fn latest_makes_up_the_last_one() {
    let (since, fires) = after_three_hours(CatchUp::Latest).await;
    assert_eq!((fires[0].kind.as_str(), fires[0].jobs), ("made_up", 1));
    assert_eq!(fires[0].passed_over + 1, hours(since, &fires[0]));
    assert!(fires[0].passed_over >= 2);
}

#[tokio::test]
async fn all_makes_up_each() {
    let (since, fires) = after_three_hours(CatchUp::All).await;
    assert!(fires.len() >= 3);
    for (number, fire) in (1..).zip(&fires) {
        assert_eq!((fire.kind.as_str(), hours(since, fire), fire.passed_over), ("made_up", number, 0));
    }
}

#[tokio::test]
async fn making_up_more_than_one_step_leaves_nothing_out() {
    let ground = Ground::new().await;
    let schedules = ground.schedules("0 * * * * *", CatchUp::All);
    schedules.fire_by_hand(super::NAME).await.unwrap();
    ground.execute("UPDATE schedules SET since = date_trunc('minute', since) - interval '40 hours'").await;
    let ticking = Ticking::start(schedules, STRICT);
    // 2,400 were missed; the last 1,000 are made up.
    ground.fired(1001).await;
    ticking.stop().await;
    let made_up: Vec<Fired> = ground.fires().await.into_iter().filter(|fire| fire.kind == "made_up").collect();
    for pair in made_up.windows(2) {
        assert_eq!((pair[1].fire_time - pair[0].fire_time).whole_seconds(), 60);
    }
    assert!(made_up[0].passed_over >= 1400 && made_up[1..].iter().all(|fire| fire.passed_over == 0));
    ground.assert_jobs().await;
}

#[tokio::test]
async fn a_new_schedule_and_a_new_expression_have_missed_nothing() {
    let ground = Ground::new().await;
    ground.schedules("0 0 * * * *", CatchUp::All).fire_by_hand(super::NAME).await.unwrap();
    ground.execute("UPDATE schedules SET since = since - interval '3 hours'").await;
    let changed = Ticking::start(ground.schedules("0 0 0 1 1 *", CatchUp::All), STRICT);
    let known = "SELECT cron = '0 0 0 1 1 *' FROM schedules";
    eventually("it is known", SOON, async || ground.value::<bool>(known).await).await;
    changed.stop().await;
    let kinds: Vec<String> = ground.fires().await.into_iter().map(|fire| fire.kind).collect();
    assert_eq!(kinds, ["by_hand"]);
    assert!(ground.value::<bool>("SELECT since > now() - interval '1 hour' FROM schedules").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_enqueued_has_not_fired_and_fires_later() {
    let ground = Ground::new().await;
    let timing = Timing { again: Duration::from_millis(50), ..Timing::default() };
    let ticking = Ticking::start(ground.schedules("* * * * * *", CatchUp::Latest), timing);
    ground.fired(1).await;
    ground.work.fails.store(true, Ordering::Relaxed);
    let before = ground.fires().await.len();
    // One may be on its way to its commit; the rest fails.
    let behind = "SELECT now() - max(fire_time) > interval '3 seconds' FROM schedule_fires";
    eventually("it is behind", SOON, async || ground.value::<bool>(behind).await).await;
    assert!(ground.fires().await.len() <= before + 1);
    ground.work.fails.store(false, Ordering::Relaxed);
    ground.fired(before + 4).await;
    ticking.stop().await;
    assert_each_second(&ground.fires().await);
    ground.assert_jobs().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_at_a_tick_loses_none() {
    let ground = Ground::new().await;
    let name = ground.url.rsplit('/').next().and_then(|end| end.split('?').next()).unwrap().to_owned();
    let postgres = PgPool::connect(&ground.url.replace(&name, "postgres")).await.unwrap();
    let execute = async |sql: String| sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&postgres).await.unwrap();
    let start = || Ticking::start(ground.schedules("* * * * * *", CatchUp::Latest), Timing::default());
    let ticking = [start(), start()];
    let before = ground.fired(2).await.len();
    execute(format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await;
    execute(format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")).await;
    // Ticks come and fail meanwhile: three seconds by the server's clock.
    sqlx::query("SELECT pg_sleep(3)").execute(&postgres).await.unwrap();
    execute(format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")).await;
    eventually("the database is back", SOON, async || sqlx::query("SELECT 1").execute(&ground.pool).await.is_ok())
        .await;
    ground.fired(before + 5).await;
    for worker in ticking {
        worker.stop().await;
    }
    assert_each_second(&ground.fires().await);
    ground.assert_jobs().await;
}
