//! Indexing jobs: an older run never overwrites a newer version, and a write commits together with its job.

use std::time::Duration;

use queue::Origin;

use super::{ItemHarness, contents};
use crate::harness::eventually;

const SOON: Duration = Duration::from_secs(20);

/// What happens to an item while the run of its first version is blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overtaking {
    Update,
    Deletion,
    /// The search index forgets the removal, as an engine does when it restarts.
    ForgottenDeletion,
}

/// Blocks the run of the first version after it has read the row. Meanwhile the item is updated or deleted.
async fn overtake_indexing_run(by: Overtaking) {
    let harness = ItemHarness::start().await;
    let items = harness.start_items(None);
    let worker = harness.start_worker(&items);
    harness.index.blocked_versions.lock().unwrap().push(1);
    let id = harness.create(&items, "first").await.id;
    harness.index.blocked.acquire().await.expect("the first run").forget();
    if by == Overtaking::Update {
        items.update(&harness.change(id), &contents("second"), Origin::default()).await.expect("updated");
    } else {
        items.delete(&harness.change(id), Origin::default()).await.expect("deleted");
    }
    eventually("the second job is done while the first still runs", SOON, async || {
        harness.index.newest.lock().unwrap().get(&id.0).is_some_and(|(version, _)| *version == 2)
    })
    .await;
    if by == Overtaking::ForgottenDeletion {
        harness.index.newest.lock().unwrap().clear();
        // No engine restarts in less than a second, so only a later run checks that its item still exists.
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
    harness.index.gate.add_permits(1);
    eventually("both jobs have ended", SOON, async || harness.count_open_jobs().await == 0).await;
    let found = harness.index.items().remove(&id.0).map(|item| item.title);
    assert_eq!(found.as_deref(), if by == Overtaking::Update { Some("second") } else { None }, "{by:?}");
    assert_eq!(harness.count("SELECT count(*) FROM apalis.jobs WHERE status = 'Done'").await, 2);
    worker.stop().await;
}

#[tokio::test]
async fn an_older_indexing_run_does_not_overwrite_a_newer_version() {
    overtake_indexing_run(Overtaking::Update).await;
}

#[tokio::test]
async fn an_older_indexing_run_does_not_restore_a_deleted_item() {
    overtake_indexing_run(Overtaking::Deletion).await;
}

#[tokio::test]
async fn a_late_indexing_run_does_not_restore_an_item_whose_removal_was_forgotten() {
    overtake_indexing_run(Overtaking::ForgottenDeletion).await;
}

#[tokio::test]
async fn an_uncommitted_write_leaves_no_job() {
    let harness = ItemHarness::start().await;
    let items = harness.start_items(None);
    let unknown = jobs::users::UserId(999_999);
    assert_eq!(items.create(unknown, &contents("x"), Origin::default()).await.expect("no error"), None);
    assert_eq!(harness.count_open_jobs().await, 0);
    // The row and its job share a transaction: without the table of the queue, the item is not created.
    let rename = |from: &str, to: &str| format!("ALTER TABLE apalis.{from} RENAME TO {to}");
    sqlx::query(sqlx::AssertSqlSafe(rename("jobs", "away"))).execute(&harness.pool).await.unwrap();
    assert!(items.create(harness.owner, &contents("x"), Origin::default()).await.is_err());
    sqlx::query(sqlx::AssertSqlSafe(rename("away", "jobs"))).execute(&harness.pool).await.unwrap();
    assert_eq!(harness.count("SELECT count(*) FROM items").await, 0);
}

#[tokio::test]
async fn writes_of_one_item_share_a_pending_job() {
    let harness = ItemHarness::start().await;
    let items = harness.start_items(None);
    let id = harness.create(&items, "version 1").await.id;
    for version in 2..=20 {
        let title = format!("version {version}");
        items.update(&harness.change(id), &contents(&title), Origin::default()).await.expect("updated");
    }
    let other = harness.create(&items, "another").await.id;
    assert_eq!(harness.count_open_jobs().await, 2, "one job for each item");
    let worker = harness.start_worker(&items);
    eventually("both jobs are done", SOON, async || harness.count_open_jobs().await == 0).await;
    let mut found = harness.index.items();
    assert_eq!(found.remove(&id.0).map(|item| item.title).as_deref(), Some("version 20"));
    assert_eq!(found.remove(&other.0).map(|item| item.title).as_deref(), Some("another"));
    worker.stop().await;
}
