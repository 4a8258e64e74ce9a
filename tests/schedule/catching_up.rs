//! Tests of catching up: missed fires are made up by policy, and failed fires are retried.

use std::{sync::atomic::Ordering, time::Duration};

use queue::schedule::{CatchUp, Timing};
use sqlx::PgPool;
use time::OffsetDateTime;

use super::{FireRow, RunningScheduler, SOON, ScheduleHarness, assert_each_second, order};
use crate::harness::eventually;

/// Every fire counts as late, so that no test has to wait until a fire is late.
const STRICT: Timing =
    Timing { check: Duration::from_secs(60), retry: Duration::from_millis(50), late: Duration::ZERO };

/// The fires of an hourly schedule whose workers were all killed three hours ago.
async fn fires_after_three_hours(policy: CatchUp) -> (OffsetDateTime, Vec<FireRow>) {
    let harness = ScheduleHarness::new().await;
    let dead = RunningScheduler::start(harness.schedules("0 0 * * * *", policy), STRICT);
    eventually("the schedule is registered", SOON, async || {
        harness.query_value::<i64>("SELECT count(*) FROM schedules").await == 1
    })
    .await;
    // Leaves the state of a killed process.
    dead.task.abort();
    harness.execute("UPDATE schedules SET since = date_trunc('hour', since) - interval '3 hours'").await;
    let since = harness.query_value("SELECT since FROM schedules").await;
    // Two workers start at the same time.
    let start = || RunningScheduler::start(harness.schedules("0 0 * * * *", policy), STRICT);
    let schedulers = [start(), start()];
    let least = if policy == CatchUp::All { 3 } else { 1 };
    harness.wait_for_fires(least).await;
    for worker in schedulers {
        worker.stop().await;
    }
    harness.assert_jobs().await;
    (since, harness.fires().await)
}

/// The hours between `since` and the fire.
fn hours_since(since: OffsetDateTime, fire: &FireRow) -> i32 {
    i32::try_from((fire.fire_time - since).whole_hours()).unwrap()
}

#[tokio::test]
async fn policy_skip_makes_up_no_fire_and_records_it() {
    let (since, fires) = fires_after_three_hours(CatchUp::Skip).await;
    assert_eq!((fires[0].kind.as_str(), fires[0].jobs), ("skipped", 0));
    assert_eq!(fires[0].passed_over + 1, hours_since(since, &fires[0]));
}

#[tokio::test]
async fn policy_latest_makes_up_the_last_fire() {
    let (since, fires) = fires_after_three_hours(CatchUp::Latest).await;
    assert_eq!((fires[0].kind.as_str(), fires[0].jobs), ("made_up", 1));
    assert_eq!(fires[0].passed_over + 1, hours_since(since, &fires[0]));
    assert!(fires[0].passed_over >= 2);
}

#[tokio::test]
async fn policy_all_makes_up_every_fire() {
    let (since, fires) = fires_after_three_hours(CatchUp::All).await;
    assert!(fires.len() >= 3);
    for (number, fire) in (1..).zip(&fires) {
        assert_eq!((fire.kind.as_str(), hours_since(since, fire), fire.passed_over), ("made_up", number, 0));
    }
}

#[tokio::test]
async fn making_up_more_than_one_batch_leaves_no_gap() {
    let harness = ScheduleHarness::new().await;
    let schedules = harness.schedules("0 * * * * *", CatchUp::All);
    schedules.fire(super::NAME, &order()).await.unwrap();
    harness.execute("UPDATE schedules SET since = date_trunc('minute', since) - interval '40 hours'").await;
    let schedulers = RunningScheduler::start(schedules, STRICT);
    // 2,400 fires were missed; the last 1,000 are made up.
    harness.wait_for_fires(1001).await;
    schedulers.stop().await;
    let made_up: Vec<FireRow> = harness.fires().await.into_iter().filter(|fire| fire.kind == "made_up").collect();
    for pair in made_up.windows(2) {
        assert_eq!((pair[1].fire_time - pair[0].fire_time).whole_seconds(), 60);
    }
    assert!(made_up[0].passed_over >= 1400 && made_up[1..].iter().all(|fire| fire.passed_over == 0));
    harness.assert_jobs().await;
}

#[tokio::test]
async fn a_new_schedule_and_a_new_expression_have_missed_nothing() {
    let harness = ScheduleHarness::new().await;
    harness.schedules("0 0 * * * *", CatchUp::All).fire(super::NAME, &order()).await.unwrap();
    harness.execute("UPDATE schedules SET since = since - interval '3 hours'").await;
    let changed = RunningScheduler::start(harness.schedules("0 0 0 1 1 *", CatchUp::All), STRICT);
    let known = "SELECT cron = '0 0 0 1 1 *' FROM schedules";
    eventually("the schedule is registered", SOON, async || harness.query_value::<bool>(known).await).await;
    changed.stop().await;
    let kinds: Vec<String> = harness.fires().await.into_iter().map(|fire| fire.kind).collect();
    assert_eq!(kinds, ["by_hand"]);
    assert!(harness.query_value::<bool>("SELECT since > now() - interval '1 hour' FROM schedules").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fire_that_could_not_be_enqueued_fires_later() {
    let harness = ScheduleHarness::new().await;
    let timing = Timing { retry: Duration::from_millis(50), ..Timing::default() };
    let schedulers = RunningScheduler::start(harness.schedules("* * * * * *", CatchUp::Latest), timing);
    harness.wait_for_fires(1).await;
    harness.work.fails.store(true, Ordering::Relaxed);
    let failing_since: OffsetDateTime = harness.query_value("SELECT clock_timestamp()").await;
    let behind = "SELECT now() - max(fire_time) > interval '3 seconds' FROM schedule_fires";
    eventually("the schedule is behind", SOON, async || harness.query_value::<bool>(behind).await).await;
    let fires = harness.fires().await;
    // Fires of earlier times may have been committing already; all later ones fail.
    assert!(fires.iter().all(|fire| fire.fire_time <= failing_since), "{failing_since}: {fires:?}");
    harness.work.fails.store(false, Ordering::Relaxed);
    harness.wait_for_fires(fires.len() + 4).await;
    schedulers.stop().await;
    assert_each_second(&harness.fires().await);
    harness.assert_jobs().await;
}

/// While a release replaces another, workers of both run. After a failure neither restarts the schedule of the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_two_expressions_failed_fires_fire_later() {
    let harness = ScheduleHarness::new().await;
    let timing = Timing { retry: Duration::from_millis(50), ..Timing::default() };
    let mut schedulers = Vec::new();
    // Two expressions with the same times.
    for cron in ["* * * * * *", "*/1 * * * * *"] {
        schedulers.push(RunningScheduler::start(harness.schedules(cron, CatchUp::Latest), timing));
        let registered = format!("SELECT EXISTS (SELECT FROM schedules WHERE cron = '{cron}')");
        eventually("it is registered", SOON, async || harness.query_value::<bool>(&registered).await).await;
    }
    let since: OffsetDateTime = harness.query_value("SELECT since FROM schedules").await;
    let before = harness.fires().await.len();
    harness.wait_for_fires(before + 1).await;
    harness.work.fails.store(true, Ordering::Relaxed);
    let behind = "SELECT now() - max(fire_time) > interval '3 seconds' FROM schedule_fires";
    eventually("the schedule is behind", SOON, async || harness.query_value::<bool>(behind).await).await;
    let before = harness.fires().await.len();
    harness.work.fails.store(false, Ordering::Relaxed);
    harness.wait_for_fires(before + 4).await;
    for worker in schedulers {
        worker.stop().await;
    }
    assert_eq!(harness.query_value::<OffsetDateTime>("SELECT since FROM schedules").await, since);
    let fires: Vec<FireRow> = harness.fires().await.into_iter().filter(|fire| fire.fire_time > since).collect();
    assert_each_second(&fires);
    harness.assert_jobs().await;
}

#[tokio::test]
async fn a_schedule_that_was_deleted_is_registered_again() {
    let harness = ScheduleHarness::new().await;
    let timing = Timing { check: Duration::from_millis(50), ..STRICT };
    let scheduler = RunningScheduler::start(harness.schedules("0 0 0 1 1 *", CatchUp::Latest), timing);
    let registered = "SELECT count(*) = 1 FROM schedules";
    for _ in 0..2 {
        eventually("the schedule is registered", SOON, async || harness.query_value::<bool>(registered).await).await;
        harness.execute("DELETE FROM schedules").await;
    }
    eventually("it is registered again", SOON, async || harness.query_value::<bool>(registered).await).await;
    scheduler.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_database_loses_no_fire() {
    let harness = ScheduleHarness::new().await;
    let name = harness.url.rsplit('/').next().and_then(|end| end.split('?').next()).unwrap().to_owned();
    let postgres = PgPool::connect(&harness.url.replace(&name, "postgres")).await.unwrap();
    let execute = async |sql: String| sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&postgres).await.unwrap();
    let start = || RunningScheduler::start(harness.schedules("* * * * * *", CatchUp::Latest), Timing::default());
    let schedulers = [start(), start()];
    let before = harness.wait_for_fires(2).await.len();
    execute(format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await;
    execute(format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")).await;
    // Ticks fail for three seconds of the server's clock.
    sqlx::query("SELECT pg_sleep(3)").execute(&postgres).await.unwrap();
    execute(format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")).await;
    eventually("the database is back", SOON, async || sqlx::query("SELECT 1").execute(&harness.pool).await.is_ok())
        .await;
    harness.wait_for_fires(before + 5).await;
    for worker in schedulers {
        worker.stop().await;
    }
    assert_each_second(&harness.fires().await);
    harness.assert_jobs().await;
}
