//! Tests with a stepped database clock: each nominal time fires once, and the next fire is shown correctly.

use std::time::Duration;

use queue::schedule::{CatchUp, Timing};
use time::OffsetDateTime;

use super::{RunningScheduler, SOON, ScheduleHarness, order};
use crate::harness::{clock::SteppedServer, eventually};

const OFTEN: Timing =
    Timing { check: Duration::from_millis(200), retry: Duration::from_millis(50), late: Duration::from_secs(90) };

async fn database_time(harness: &ScheduleHarness) -> OffsetDateTime {
    harness.query_value("SELECT clock_timestamp()").await
}

/// Waits for a condition, then asserts that no time fired twice: each time has one row, and each row has one job.
async fn wait_and_assert_jobs(harness: &ScheduleHarness, what: &str, condition: &str) {
    eventually(what, SOON, async || harness.query_value::<bool>(&format!("SELECT {condition}")).await).await;
    harness.assert_jobs().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_step_back_only_times_that_have_not_fired_fire() {
    let Some(server) = SteppedServer::start().await else { return };
    let harness = ScheduleHarness::on_database(&server.url).await;
    let schedules = harness.schedules("* * * * * *", CatchUp::Latest);
    let scheduler = RunningScheduler::start(schedules.clone(), OFTEN);
    harness.wait_for_fires(3).await;
    for step in [-600, -1_000_000, 0] {
        server.step(step);
        let stepped = database_time(&harness).await;
        let fires = format!(
            "(SELECT count(*) >= 3 FROM schedule_fires WHERE fire_time BETWEEN '{stepped}' AND '{stepped}'::timestamptz + interval '1 minute')"
        );
        wait_and_assert_jobs(&harness, &format!("the schedule fires after a step to {step} s"), &fires).await;
    }
    scheduler.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_fire_shown_has_not_fired_yet() {
    let Some(server) = SteppedServer::start().await else { return };
    let harness = ScheduleHarness::on_database(&server.url).await;
    let schedules = harness.schedules("* * * * * *", CatchUp::Latest);
    let scheduler = RunningScheduler::start(schedules.clone(), OFTEN);
    harness.wait_for_fires(3).await;
    server.step(-30);
    wait_and_assert_jobs(
        &harness,
        "the schedule fires after the step",
        "(SELECT min(fire_time) < max(fire_time) - interval '20 s' FROM schedule_fires)",
    )
    .await;
    scheduler.stop().await;
    let ahead: Vec<OffsetDateTime> = harness.fires().await.into_iter().map(|fire| fire.fire_time).collect();
    // Checks at the seconds that fired before the step, and at the second before them.
    let last = *ahead.last().expect("fires");
    for second in 0..4 {
        let wanted = last - Duration::from_secs(second) - Duration::from_millis(500);
        let offset = (wanted - OffsetDateTime::now_utc()).whole_seconds();
        server.step(offset);
        // Read before the overview: its own time is later, however long a step takes.
        let before = database_time(&harness).await;
        let overview = schedules.overview().await.unwrap();
        let next = overview[0].next.expect("a next fire");
        assert!(!ahead.contains(&next), "{next} has already fired: {ahead:?}");
        assert!(next > before, "{next} is in the past at {before}");
    }
}

/// The schedule was registered and fired while the clock was a year ahead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_was_a_year_ahead_stops_no_schedule() {
    let harness = ScheduleHarness::new().await;
    let schedules = harness.schedules("* * * * * *", CatchUp::Latest);
    schedules.fire(super::NAME, &order()).await.unwrap();
    harness.execute("UPDATE schedules SET since = since + interval '1 year'").await;
    harness
        .execute(&format!(
            "INSERT INTO schedule_fires (schedule, fire_time, kind)
             VALUES ('{0}', now() + interval '1 year', 'skipped'), ('{0}', 'infinity', 'skipped'), ('{0}', '-infinity', 'skipped')",
            super::NAME
        ))
        .await;
    let scheduler = RunningScheduler::start(schedules.clone(), OFTEN);
    let fires = "(SELECT count(*) >= 3 FROM schedule_fires WHERE kind = 'on_time' AND fire_time < now())";
    eventually("the schedule fires", SOON, async || harness.query_value::<bool>(&format!("SELECT {fires}")).await)
        .await;
    scheduler.stop().await;
    assert!(schedules.fires(None, None, 100).await.unwrap().rows.len() >= 6, "infinite times are listed too");
}
