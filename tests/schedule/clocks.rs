//! Steps of the database's clock: each nominal time fires once, and what is shown as the next fire is the next fire.

use std::time::Duration;

use jobs::schedule::{CatchUp, Timing};
use time::OffsetDateTime;

use super::{Ground, SOON, Ticking};
use crate::harness::{clock::SteppedServer, eventually};

const OFTEN: Timing =
    Timing { look: Duration::from_millis(200), again: Duration::from_millis(50), late: Duration::from_secs(90) };

async fn now(ground: &Ground) -> OffsetDateTime {
    ground.value("SELECT clock_timestamp()").await
}

/// Every row of the ledger has one job, and a nominal time has one row: nothing fires twice.
async fn fires_until(ground: &Ground, what: &str, condition: &str) {
    eventually(what, SOON, async || ground.value::<bool>(&format!("SELECT {condition}")).await).await;
    ground.assert_jobs().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_step_back_it_fires_what_has_not_fired() {
    let Some(server) = SteppedServer::start().await else { return };
    let ground = Ground::on(&server.url).await;
    let schedules = ground.schedules("* * * * * *", CatchUp::Latest);
    let ticking = Ticking::start(schedules.clone(), OFTEN);
    ground.fired(3).await;
    for step in [-600, -1_000_000, 0] {
        server.step(step);
        let stepped = now(&ground).await;
        let fires = format!(
            "(SELECT count(*) >= 3 FROM schedule_fires WHERE fire_time BETWEEN '{stepped}' AND '{stepped}'::timestamptz + interval '1 minute')"
        );
        fires_until(&ground, &format!("it fires after a step to {step} s"), &fires).await;
    }
    ticking.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_fire_is_one_that_has_not_fired() {
    let Some(server) = SteppedServer::start().await else { return };
    let ground = Ground::on(&server.url).await;
    let schedules = ground.schedules("* * * * * *", CatchUp::Latest);
    let ticking = Ticking::start(schedules.clone(), OFTEN);
    ground.fired(3).await;
    server.step(-30);
    fires_until(
        &ground,
        "it fires after the step",
        "(SELECT min(fire_time) < max(fire_time) - interval '20 s' FROM schedule_fires)",
    )
    .await;
    ticking.stop().await;
    let ahead: Vec<OffsetDateTime> = ground.fires().await.into_iter().map(|fire| fire.fire_time).collect();
    // At the last second before those that fired before the step, and at each of them.
    let last = *ahead.last().expect("fires");
    for second in 0..4 {
        let wanted = last - Duration::from_secs(second) - Duration::from_millis(500);
        let offset = (wanted - OffsetDateTime::now_utc()).whole_seconds();
        server.step(offset);
        let overview = schedules.overview().await.unwrap();
        let next = overview[0].next.expect("a next fire");
        assert!(!ahead.contains(&next), "{next} has fired: {ahead:?}");
        assert!(next > now(&ground).await - Duration::from_secs(1), "{next} is over");
    }
}

/// Registered, and fired, while the clock was a year ahead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_was_a_year_ahead_silences_no_schedule() {
    let ground = Ground::new().await;
    let schedules = ground.schedules("* * * * * *", CatchUp::Latest);
    schedules.fire_by_hand(super::NAME).await.unwrap();
    ground.execute("UPDATE schedules SET since = since + interval '1 year'").await;
    ground
        .execute(&format!(
            "INSERT INTO schedule_fires (schedule, fire_time, kind)
             VALUES ('{0}', now() + interval '1 year', 'skipped'), ('{0}', 'infinity', 'skipped'), ('{0}', '-infinity', 'skipped')",
            super::NAME
        ))
        .await;
    let ticking = Ticking::start(schedules.clone(), OFTEN);
    let fires = "(SELECT count(*) >= 3 FROM schedule_fires WHERE kind = 'on_time' AND fire_time < now())";
    eventually("it fires", SOON, async || ground.value::<bool>(&format!("SELECT {fires}")).await).await;
    ticking.stop().await;
    assert!(schedules.fires(None, 100).await.unwrap().len() >= 6, "shown, the infinite ones too");
}
