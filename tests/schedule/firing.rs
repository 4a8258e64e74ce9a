//! Tests of firing: each nominal time fires once, as soon as the database's clock reaches it.

use std::time::Duration;

use futures_util::future::join_all;
use queue::{
    Queue,
    schedule::{CatchUp, Cron, Schedule, Schedules, Timing},
};

use super::{NAME, RunningScheduler, SOON, ScheduleHarness, assert_each_second, order};
use crate::harness::eventually;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ten_workers_one_fires_each_second() {
    let harness = ScheduleHarness::new().await;
    let start = || RunningScheduler::start(harness.schedules("* * * * * *", CatchUp::Latest), Timing::default());
    let scheduler: Vec<RunningScheduler> = (0..10).map(|_| start()).collect();
    harness.wait_for_fires(6).await;
    join_all(scheduler.into_iter().map(RunningScheduler::stop)).await;
    let fires = harness.fires().await;
    assert_each_second(&fires);
    assert!(fires.iter().all(|fire| fire.kind == "on_time" && fire.lag >= 0.0), "{fires:?}");
    harness.assert_jobs().await;
    let lag = fires.iter().map(|fire| fire.lag).sum::<f64>() / fires.len() as f64;
    println!("{} fires of ten workers, on average {lag:.2} s after their nominal times", fires.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_workers_fire_once_and_early_workers_do_not_fire() {
    let harness = ScheduleHarness::new().await;
    let cron = Cron::parse("0 0 0 1 1 *").unwrap();
    let schedule = Schedule { name: NAME, cron, catch_up: CatchUp::All, work: harness.work.clone() };
    let schedules = Schedules::new(
        &harness.pool.clone().into(),
        &Queue::start(harness.pool.clone().into()),
        vec![schedule.clone()],
    );
    // Registers the schedule now, so that the next new year is its first time.
    let scheduler = RunningScheduler::start(schedules.clone(), Timing::default());
    eventually("the schedule is registered", SOON, async || {
        harness.query_value::<i64>("SELECT count(*) FROM schedules").await == 1
    })
    .await;
    scheduler.stop().await;
    let late = Duration::from_secs(90);
    let all_at_once = || join_all((0..20).map(|_| schedules.fire_due(&schedule, late)));
    assert!(all_at_once().await.iter().all(Result::is_ok));
    // A worker whose clock is ahead tries before the database's clock has reached the time.
    assert_eq!(harness.fires().await.len(), 0);
    harness.execute("UPDATE schedules SET since = since - interval '2 years'").await;
    assert!(all_at_once().await.iter().all(Result::is_ok));
    assert_eq!(harness.fires().await.len(), 2);
    harness.assert_jobs().await;
}

#[tokio::test]
async fn a_manual_fire_does_not_replace_a_scheduled_one() {
    let harness = ScheduleHarness::new().await;
    let schedules = harness.schedules("0 0 0 1 1 *", CatchUp::Latest);
    assert_eq!(schedules.fire("no such schedule", &order()).await.unwrap(), None);
    assert_eq!(schedules.fire(NAME, &order()).await.unwrap(), Some(1));
    assert_eq!(schedules.fire(NAME, &order()).await.unwrap(), Some(1));
    harness.execute("UPDATE schedules SET since = since - interval '1 year'").await;
    let scheduler = RunningScheduler::start(schedules.clone(), Timing::default());
    let fires = harness.wait_for_fires(3).await;
    scheduler.stop().await;
    let kinds: Vec<&str> = fires.iter().map(|fire| &*fire.kind).collect();
    assert_eq!(kinds, ["made_up", "by_hand", "by_hand"]);
    harness.assert_jobs().await;
    let overview = schedules.overview().await.unwrap();
    assert_eq!((overview[0].name, &*overview[0].cron, &*overview[0].catch_up), (NAME, "0 0 0 1 1 *", "latest"));
    assert_eq!(overview[0].latest.len(), 3);
    assert!(overview[0].next > Some(overview[0].latest[0].fired_at));
}

#[tokio::test]
async fn old_fires_are_deleted_except_for_the_latest() {
    let harness = ScheduleHarness::new().await;
    let schedules = harness.schedules("0 0 0 1 1 *", CatchUp::All);
    schedules.fire(NAME, &order()).await.unwrap();
    harness.execute("UPDATE schedules SET since = since - interval '10 years'").await;
    harness.execute("UPDATE schedule_fires SET fired_at = fired_at - interval '91 days'").await;
    let scheduler = RunningScheduler::start(schedules.clone(), Timing::default());
    harness.wait_for_fires(10).await;
    scheduler.stop().await;
    let fires = harness.fires().await;
    assert!(
        fires.len() == 10 && fires.iter().all(|fire| fire.kind == "made_up"),
        "the manual fire is deleted: {fires:?}"
    );
    harness.execute("UPDATE schedule_fires SET fired_at = fired_at - interval '91 days'").await;
    harness.execute("DELETE FROM schedule_fires WHERE fire_time = (SELECT max(fire_time) FROM schedule_fires)").await;
    let scheduler = RunningScheduler::start(schedules, Timing::default());
    let newest = "SELECT max(fire_time) > now() - interval '1 year' FROM schedule_fires";
    eventually("the last fire is made up", SOON, async || harness.query_value::<bool>(newest).await).await;
    scheduler.stop().await;
    assert_eq!(harness.fires().await.len(), 1);
}
