//! Promise 3: a due job is started by its notification, by its due time, or by a look; each without the other two.

use std::time::Duration;

use jobs::queue::Timing;

use crate::harness::{
    eventually,
    stage::{Act, FAST, NEVER, Stage, Theatre, quick_policy},
};

/// Long beside any wake-up, short beside [`NEVER`].
const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_notification_starts_a_due_job() {
    let (theatre, stage) = (Theatre::open().await, Stage::new(quick_policy()));
    let running = theatre.worker(&stage, Timing { poll: NEVER, ..FAST });
    theatre.enqueue("first", &[Act::Done]).await;
    eventually("the first has run", SOON, async || stage.runs_of("first") == 1).await;
    theatre.until_idle().await;
    theatre.enqueue("second", &[Act::Done]).await;
    eventually("the second has run", SOON, async || stage.runs_of("second") == 1).await;
    running.stop().await;
}

#[tokio::test]
async fn a_look_finds_a_job_that_nobody_announced() {
    let (theatre, stage) = (Theatre::open().await, Stage::new(quick_policy()));
    let running = theatre.worker(&stage, FAST);
    theatre.enqueue("first", &[Act::Done]).await;
    eventually("the first has run", SOON, async || stage.runs_of("first") == 1).await;
    theatre.until_idle().await;
    theatre
        .execute("INSERT INTO apalis.jobs (id, job_type, job) VALUES ('x', 'scripted', '{\"name\": \"silent\", \"acts\": []}')")
        .await;
    eventually("the silent one has run", SOON, async || stage.runs_of("silent") == 1).await;
    running.stop().await;
}

#[tokio::test]
async fn a_scheduled_job_starts_at_its_time() {
    let (theatre, stage) = (Theatre::open().await, Stage::new(quick_policy()));
    let running = theatre.worker(&stage, Timing { poll: NEVER, ..FAST });
    theatre.enqueue("now", &[Act::Done]).await;
    eventually("the first has run", SOON, async || stage.runs_of("now") == 1).await;
    theatre.until_idle().await;
    theatre.enqueue_as("later", &[Act::Done], |job| job.after(Duration::from_millis(400))).await;
    eventually("the later one has run", SOON, async || stage.runs_of("later") == 1).await;
    running.stop().await;
    let row = theatre.row("later").await;
    assert!(row.due_in <= 0.0, "it ran before its time: {row:?}");
}

/// The next one is due while the worker is still busy with finding out about the one before.
#[tokio::test]
async fn each_of_a_series_starts_at_its_time() {
    let (theatre, stage) = (Theatre::open().await, Stage::new(quick_policy()));
    let running = theatre.worker(&stage, Timing { poll: NEVER, ..FAST });
    theatre.until_idle().await;
    for n in 1..=20 {
        theatre.enqueue_as(&format!("job {n}"), &[Act::Done], |job| job.after(Duration::from_millis(n * 20))).await;
    }
    eventually("all have run", SOON, async || stage.ran().len() == 20).await;
    running.stop().await;
}

#[tokio::test]
async fn a_worker_that_stops_hearing_listens_again_and_looks_for_what_it_missed() {
    let (theatre, stage) = (Theatre::open().await, Stage::new(quick_policy()));
    let running = theatre.worker(&stage, Timing { poll: NEVER, ..FAST });
    theatre.enqueue("first", &[Act::Done]).await;
    eventually("the first has run", SOON, async || stage.runs_of("first") == 1).await;
    theatre.until_idle().await;
    let insert =
        "INSERT INTO apalis.jobs (id, job_type, job) VALUES ('x', 'scripted', '{\"name\": \"missed\", \"acts\": []}')";
    let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE application_name = 'millrace listener' AND datname = current_database()";
    assert_eq!(theatre.execute(ended).await, 1, "one listener");
    theatre.execute(insert).await;
    eventually("the missed one has run", SOON, async || stage.runs_of("missed") == 1).await;
    theatre.enqueue("announced", &[Act::Done]).await;
    eventually("announcements are heard again", SOON, async || stage.runs_of("announced") == 1).await;
    running.stop().await;
}
