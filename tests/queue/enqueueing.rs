//! Promise 1: a job is part of its transaction, and knows where it comes from.

use jobs::queue::{NewJob, Origin, enqueue};

use crate::harness::stage::{Act, Scripted, Stage, Theatre, quick_policy};

#[tokio::test]
async fn a_job_exists_if_and_only_if_its_transaction_commits() {
    let (theatre, stage) = (Theatre::open().await, Stage::new(quick_policy()));
    let job = |name: &str| NewJob::of(&Scripted { name: name.into(), acts: vec![] }).unwrap();
    let mut tx = theatre.queue.begin().await.unwrap();
    enqueue(&mut tx, &[job("rolled back")]).await.unwrap();
    drop(tx);
    let mut tx = theatre.queue.begin().await.unwrap();
    enqueue(&mut tx, &[job("first"), job("second")]).await.unwrap();
    tx.commit().await.unwrap();
    theatre.run_all(&stage).await;
    let mut names: Vec<String> = stage.ran().into_iter().map(|ran| ran.name).collect();
    names.sort();
    assert_eq!(names, ["first", "second"]);
}

#[tokio::test]
async fn a_job_carries_its_origin() {
    let (theatre, stage) = (Theatre::open().await, Stage::new(quick_policy()));
    let origin = Origin {
        correlation_id: Some("req-1".into()),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
    };
    theatre.enqueue_as("with", &[Act::Done], |job| job.origin(origin.clone())).await;
    theatre.enqueue("without", &[Act::Done]).await;
    theatre.run_all(&stage).await;
    for ran in stage.ran() {
        let expected = if ran.name == "with" { origin.clone() } else { Origin::default() };
        assert_eq!(ran.run.origin, expected, "{}", ran.name);
    }
}
