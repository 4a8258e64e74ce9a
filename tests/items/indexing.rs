//! A newer version never loses to an older indexing job, whatever runs when.

use std::time::Duration;

use jobs::queue::Origin;

use super::{Shop, contents, count};
use crate::harness::eventually;

const SOON: Duration = Duration::from_secs(20);

/// The run of the first version has read its row and hangs; meanwhile the item changes, or goes.
async fn overtake(delete: bool) {
    let shop = Shop::open().await;
    let items = shop.process(None);
    let worker = shop.worker(&items);
    shop.recorder.held.lock().unwrap().push(1);
    let id = shop.create(&items, "first").await.id;
    shop.recorder.waiting.acquire().await.expect("the first run").forget();
    if delete {
        items.delete(&shop.change(id), Origin::default()).await.expect("deleted");
    } else {
        items.update(&shop.change(id), &contents("second"), Origin::default()).await.expect("updated");
    }
    eventually("the second job is done, beside the first", SOON, async || {
        shop.recorder.known.lock().unwrap().get(&id.0).is_some_and(|(version, _)| *version == 2)
    })
    .await;
    shop.recorder.gate.add_permits(1);
    eventually("both have ended", SOON, async || shop.left().await == 0).await;
    let found = shop.recorder.found().remove(&id.0).map(|item| item.title);
    assert_eq!(found.as_deref(), if delete { None } else { Some("second") });
    assert_eq!(count(&shop.pool, "SELECT count(*) FROM apalis.jobs WHERE status = 'Done'").await, 2);
    worker.stop().await;
}

#[tokio::test]
async fn a_run_that_read_an_older_row_does_not_swallow_a_newer_version() {
    overtake(false).await;
}

#[tokio::test]
async fn a_run_that_read_a_row_does_not_bring_a_deleted_item_back() {
    overtake(true).await;
}

#[tokio::test]
async fn a_write_that_does_not_commit_leaves_no_job() {
    let shop = Shop::open().await;
    let items = shop.process(None);
    let nobody = jobs::users::UserId(999_999);
    assert_eq!(items.create(nobody, &contents("x"), Origin::default()).await.expect("asked"), None);
    assert_eq!(shop.left().await, 0);
    // The row and its job go together: without the queue's table there is no item either.
    let rename = |from: &str, to: &str| format!("ALTER TABLE apalis.{from} RENAME TO {to}");
    sqlx::query(sqlx::AssertSqlSafe(rename("jobs", "away"))).execute(&shop.pool).await.unwrap();
    assert!(items.create(shop.owner, &contents("x"), Origin::default()).await.is_err());
    sqlx::query(sqlx::AssertSqlSafe(rename("away", "jobs"))).execute(&shop.pool).await.unwrap();
    assert_eq!(count(&shop.pool, "SELECT count(*) FROM items").await, 0);
}

#[tokio::test]
async fn writes_of_one_item_share_the_job_that_waits() {
    let shop = Shop::open().await;
    let items = shop.process(None);
    let id = shop.create(&items, "version 1").await.id;
    for version in 2..=20 {
        let title = format!("version {version}");
        items.update(&shop.change(id), &contents(&title), Origin::default()).await.expect("updated");
    }
    let other = shop.create(&items, "another").await.id;
    assert_eq!(shop.left().await, 2, "one for each item");
    let worker = shop.worker(&items);
    eventually("both are done", SOON, async || shop.left().await == 0).await;
    let mut found = shop.recorder.found();
    assert_eq!(found.remove(&id.0).map(|item| item.title).as_deref(), Some("version 20"));
    assert_eq!(found.remove(&other.0).map(|item| item.title).as_deref(), Some("another"));
    worker.stop().await;
}
