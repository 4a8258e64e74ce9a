//! Tests of what operators do to schedules, and of the outcomes that they see.

use std::time::Duration;

use queue::schedule::{CatchUp, FireOutcome, JobStates, Skip, Timing};
use time::OffsetDateTime;

use super::{NAME, RunningScheduler, ScheduleHarness, order};

const YEARLY: &str = "0 0 0 1 1 *";
/// Every fire counts as late.
const STRICT: Timing =
    Timing { check: Duration::from_secs(60), retry: Duration::from_millis(50), late: Duration::ZERO };

/// The nominal time that is skipped.
fn skipped(skip: Skip) -> OffsetDateTime {
    match skip {
        Skip::Skipped(time) => time,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_skipped_fire_does_not_happen_and_the_next_one_happens_once() {
    let harness = ScheduleHarness::new().await;
    let start = || RunningScheduler::start(harness.schedules("* * * * * *", CatchUp::Latest), Timing::default());
    let schedulers: Vec<RunningScheduler> = (0..3).map(|_| start()).collect();
    harness.wait_for_fires(2).await;
    let operator = harness.schedules("* * * * * *", CatchUp::Latest);
    let time = skipped(operator.skip_next(NAME, &order()).await.unwrap());
    let before = harness.fires().await.iter().filter(|fire| fire.fire_time < time).count();
    let fires = harness.wait_for_fires(before + 4).await;
    for scheduler in schedulers {
        scheduler.stop().await;
    }
    super::assert_each_second(&fires);
    let skipped: Vec<_> = fires.iter().filter(|fire| fire.kind == "skipped").collect();
    assert_eq!((skipped.len(), skipped[0].fire_time, skipped[0].jobs), (1, time, 0), "{fires:?}");
    assert!(fires.iter().all(|fire| fire.kind == "skipped" || fire.kind == "on_time"), "{fires:?}");
    harness.assert_jobs().await;
    let recorded = operator.fires(Some(NAME), None, 100).await.unwrap().rows;
    let row = recorded.iter().find(|fire| fire.fire_time == time).expect("its row");
    assert_eq!((row.fired_by.as_deref(), row.outcome), (Some("ada"), FireOutcome::NoJobs));
}

#[tokio::test]
async fn one_fire_is_skipped_at_a_time_and_shown_with_its_operator() {
    let harness = ScheduleHarness::new().await;
    let schedules = harness.schedules(YEARLY, CatchUp::Latest);
    assert_eq!(schedules.skip_next("no such schedule", &order()).await.unwrap(), Skip::NotFound);
    let time = skipped(schedules.skip_next(NAME, &order()).await.unwrap());
    let again = schedules.skip_next(NAME, &order()).await.unwrap();
    assert!(matches!(&again, Skip::AlreadySkipped(next) if next.time == time), "{again:?}");
    let overview = schedules.overview().await.unwrap().remove(0);
    let times: Vec<_> = overview.upcoming.iter().map(|next| next.skipped_by.as_deref()).collect();
    assert_eq!((overview.upcoming[0].time, &*times), (time, &[Some("ada"), None, None, None, None][..]));
    assert_eq!((overview.next, overview.latest.len()), (Some(overview.upcoming[1].time), 0));
    let actions = harness.actions().await;
    let (actor, action, target, reason, at) = &actions[0];
    assert_eq!((actions.len(), &**actor, &**action, &**target, &**reason), (1, "ada", "skip", NAME, "a test"));
    assert!(at.as_ref().is_some_and(|at| at.ends_with("-01-01T00:00:00Z")), "{at:?}");
}

/// The row of the skipped time decides all times before it, so the missed ones must fire first.
#[tokio::test]
async fn a_skip_loses_no_missed_fire() {
    let harness = ScheduleHarness::new().await;
    let schedules = harness.schedules("0 0 * * * *", CatchUp::All);
    let running = RunningScheduler::start(schedules.clone(), STRICT);
    crate::harness::eventually("the schedule is registered", super::SOON, async || {
        harness.query_value::<i64>("SELECT count(*) FROM schedules").await == 1
    })
    .await;
    running.stop().await;
    harness.execute("UPDATE schedules SET since = date_trunc('hour', since) - interval '3 hours'").await;
    let time = skipped(schedules.skip_next(NAME, &order()).await.unwrap());
    let fires = harness.fires().await;
    let (last, earlier) = fires.split_last().expect("fires");
    assert_eq!((last.fire_time, &*last.kind), (time, "skipped"));
    assert!(earlier.len() >= 3 && earlier.iter().all(|fire| fire.kind != "skipped" && fire.jobs == 1), "{fires:?}");
}

#[tokio::test]
async fn a_skip_far_ahead_is_kept_until_its_time() {
    let harness = ScheduleHarness::new().await;
    let schedules = harness.schedules(YEARLY, CatchUp::All);
    skipped(schedules.skip_next(NAME, &order()).await.unwrap());
    harness.execute("UPDATE schedule_fires SET fired_at = fired_at - interval '91 days'").await;
    harness.execute("UPDATE schedules SET since = since - interval '2 years'").await;
    // The fires of two years delete old ones.
    let running = RunningScheduler::start(schedules, STRICT);
    harness.wait_for_fires(3).await;
    running.stop().await;
    let kinds: Vec<String> = harness.fires().await.into_iter().map(|fire| fire.kind).collect();
    assert_eq!(kinds, ["made_up", "made_up", "skipped"]);
}

#[tokio::test]
async fn the_outcome_of_a_fire_follows_its_jobs() {
    let harness = ScheduleHarness::new().await;
    let schedules = harness.schedules(YEARLY, CatchUp::Latest);
    assert_eq!(schedules.fire(NAME, &order()).await.unwrap(), Some(1));
    let fire = schedules.fires(None, None, 10).await.unwrap().rows.remove(0);
    assert_eq!((fire.outcome, fire.fired_by.as_deref(), fire.jobs), (FireOutcome::Waiting, Some("ada"), 1));
    assert!(fire.first_job.is_some() && fire.first_job == fire.last_job, "{fire:?}");
    // Another job whose id is between the ids of the fire's jobs.
    let other = "INSERT INTO apalis.jobs (id, job_type, job, status)
                 SELECT first_job || 'X', 'scripted', '', 'Killed' FROM schedule_fires";
    harness.execute(other).await;
    harness.execute("UPDATE schedule_fires SET last_job = first_job || 'Z'").await;
    for (change, outcome) in [
        ("failures = 1", FireOutcome::Retried),
        ("status = 'Running'", FireOutcome::Running),
        ("status = 'Killed'", FireOutcome::Dead),
        ("status = 'Cancelled'", FireOutcome::Cancelled),
        ("status = 'Done'", FireOutcome::Done),
    ] {
        harness.execute(&format!("UPDATE apalis.jobs SET {change} WHERE metadata IS NOT NULL")).await;
        let fire = schedules.overview().await.unwrap().remove(0).latest.remove(0);
        assert_eq!(fire.outcome, outcome, "{change}: {fire:?}");
    }
    harness.execute("DELETE FROM apalis.jobs WHERE metadata IS NOT NULL").await;
    let fire = schedules.overview().await.unwrap().remove(0).latest.remove(0);
    assert_eq!((fire.outcome, fire.states), (FireOutcome::NotKnown, JobStates::default()));
}

/// A process with another expression, such as the API, must not change what the workers do.
#[tokio::test]
async fn an_order_keeps_the_expression_of_the_workers() {
    let harness = ScheduleHarness::new().await;
    harness.schedules(YEARLY, CatchUp::All).fire(NAME, &order()).await.unwrap();
    let other = harness.schedules("0 0 * * * *", CatchUp::Skip);
    other.fire(NAME, &order()).await.unwrap();
    let time = skipped(other.skip_next(NAME, &order()).await.unwrap());
    assert_eq!((time.month(), time.day(), time.hour()), (time::Month::January, 1, 0));
    let overview = other.overview().await.unwrap().remove(0);
    assert_eq!((&*overview.cron, &*overview.catch_up), (YEARLY, "all"));
}
