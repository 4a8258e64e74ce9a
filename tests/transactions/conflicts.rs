//! Conflicting webhooks: they delay no other webhook, and the number of stored conflicts is bounded.

use std::time::Duration;

use futures_util::future::join_all;
use jobs::transactions::{Config, Transactions};
use queue::{Queue, Retention};
use sqlx::{PgPool, Row as _};
use tokio_util::sync::CancellationToken;

use super::{System, webhook_with};
use crate::harness::{
    eventually,
    http::{send, send_until},
    process::Api,
};

const SOON: Duration = Duration::from_secs(20);

/// Counts the INSERT statements on a table in the sequence `<table>_statements`.
async fn count_statements(pool: &PgPool, table: &str) {
    let count = format!(
        "CREATE SEQUENCE {table}_statements MINVALUE 0 START 0;
         CREATE FUNCTION count_{table}() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM nextval('{table}_statements'); RETURN NULL; END $$;
         CREATE TRIGGER count_{table} AFTER INSERT ON {table} FOR EACH STATEMENT EXECUTE FUNCTION count_{table}();
         SELECT nextval('{table}_statements')"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(count)).execute(pool).await.unwrap();
}

#[tokio::test]
async fn conflicts_share_statements_and_delay_no_other_webhook() {
    let system = System::start(&[]).await;
    let pool = system.database.pool().await;
    for table in ["webhook_conflicts", "webhook_conflict_totals"] {
        count_statements(&pool, table).await;
    }
    for id in ["a", "b"] {
        system.send_webhook(id).await;
    }
    // Conflicts cannot be written while this lock is held. On a machine that stalls, the statement of the first ones
    // may time out before the test releases it. Then they are sent again.
    let mut held = pool.begin().await.unwrap();
    let lock = "LOCK TABLE webhook_conflicts, webhook_conflict_totals IN ACCESS EXCLUSIVE MODE";
    sqlx::query(lock).execute(&mut *held).await.unwrap();
    let conflicting: Vec<_> = (0..200)
        .map(|number| {
            let body = webhook_with(["a", "b"][number % 2], "amount", &format!("{number}.5"));
            tokio::spawn(send_until(system.post_webhook(body), |sent| sent.status != 503))
        })
        .collect();
    eventually("a conflict waits for the table", SOON, async || {
        let waiting =
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'webhook_conflict_totals'::regclass";
        sqlx::query_scalar::<_, i64>(waiting).fetch_one(&pool).await.unwrap() > 0
    })
    .await;
    // Without the separation, each of these would share a batch with conflicts or wait behind one.
    for number in 0..5 {
        system.send_webhook(&format!("other-{number}")).await;
    }
    let replayed = send(system.post_webhook(super::webhook("a").to_string())).await;
    assert_eq!((replayed.status, replayed.header("idempotency-replayed")), (202, "true"));
    held.rollback().await.unwrap();
    for response in join_all(conflicting).await {
        let response = response.unwrap();
        assert_eq!((response.status, response.header("idempotency-conflict")), (202, "amount"), "{response:?}");
    }
    for table in ["webhook_conflicts", "webhook_conflict_totals"] {
        let statements = system.count(&format!("SELECT last_value FROM {table}_statements")).await;
        assert!((1..20).contains(&statements), "200 conflicts took {statements} statements in {table}");
    }
    assert_eq!(system.count("SELECT sum(times)::int8 FROM webhook_conflict_totals").await, 200);
}

#[tokio::test]
async fn the_first_conflicting_payloads_are_kept_and_all_are_counted() {
    let system = System::start(&[]).await;
    let other = Api::start(&system.database.url, &[("WEBHOOK_CONFLICT", "reject")]).await;
    for id in ["few", "many", "one"] {
        system.send_webhook(id).await;
    }
    let send_conflict = async |id: &str, amount: &str| {
        let response = send(system.post_webhook(webhook_with(id, "amount", amount))).await;
        assert_eq!((response.status, response.header("idempotency-conflict")), (202, "amount"), "{response:?}");
    };
    // Equal amounts are one payload in every notation.
    for amount in ["7", "7.0", "\"7.000\"", "70e-1", "8"] {
        send_conflict("few", amount).await;
    }
    send_conflict("one", "1").await;
    for number in 0..5 {
        send_conflict("many", &format!("{number}.25")).await;
    }
    // Through two processes at once, far more than the limit of 20.
    let requests = (0..300).map(|number| {
        let url = if number % 2 == 0 { &system.api.url } else { &other.url };
        let request =
            system.client.post(format!("{url}{}", super::WEBHOOKS)).header("content-type", "application/json");
        send(request.body(webhook_with("many", "amount", &format!("{}.75", number % 150))))
    });
    let responses = join_all(requests).await;
    assert!(responses.iter().all(|response| [202, 409].contains(&response.status)), "{responses:?}");
    let pool = system.database.pool().await;
    let kept = "SELECT total.transaction_id, total.times, count(*) AS payloads, sum(kept.times)::int8 AS of_them,
                       count(*) FILTER (WHERE kept.payload ->> 'amount' LIKE '%.25') AS early
                FROM webhook_conflict_totals AS total JOIN webhook_conflicts AS kept USING (transaction_id)
                GROUP BY total.transaction_id, total.times ORDER BY 1";
    let rows = sqlx::query(kept).fetch_all(&pool).await.unwrap();
    let rows: Vec<(String, i64, i64, i64, i64)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))).collect();
    assert_eq!(rows[0], ("few".into(), 5, 2, 5, 0));
    assert_eq!((&*rows[1].0, rows[1].1, rows[1].2, rows[1].4), ("many", 305, 20, 5), "the first 20: {rows:?}");
    assert_eq!(rows[2], ("one".into(), 1, 1, 1, 0));
    // A stored payload keeps its own count. Any other payload counts only in the total.
    send_conflict("many", "0.25").await;
    send_conflict("many", "9999").await;
    assert_eq!(system.count("SELECT times FROM webhook_conflict_totals WHERE transaction_id = 'many'").await, 307);
    let times = "SELECT times FROM webhook_conflicts WHERE transaction_id = 'many' AND payload ->> 'amount' = '0.25'";
    assert_eq!(system.count(times).await, 2);
    assert_eq!(system.count("SELECT count(*) FROM webhook_conflicts WHERE transaction_id = 'many'").await, 20);
}

#[tokio::test]
async fn conflicts_are_deleted_after_their_retention() {
    let system = System::start(&[]).await;
    for id in ["old", "young"] {
        system.send_webhook(id).await;
        assert_eq!(send(system.post_webhook(webhook_with(id, "amount", "1"))).await.status, 202);
        assert_eq!(send(system.post_webhook(webhook_with(id, "amount", "2"))).await.status, 202);
    }
    let pool = system.database.pool().await;
    let aged =
        "UPDATE webhook_conflict_totals SET last_at = now() - interval '30 days 1 s' WHERE transaction_id = 'old';
                UPDATE webhook_conflict_totals SET last_at = now() - interval '29 days' WHERE transaction_id = 'young'";
    sqlx::raw_sql(aged).execute(&pool).await.unwrap();
    let stop = CancellationToken::new();
    let transactions =
        Transactions::start(&pool.clone().into(), &Queue::start(pool.clone().into()), &Config::default(), stop.clone())
            .unwrap();
    let often = Retention { every: Duration::from_millis(5), ..Retention::DEFAULT };
    let retaining = tokio::spawn(transactions.delete_expired_conflicts(often));
    eventually("the old conflicts are deleted", SOON, async || {
        system.count("SELECT count(*) FROM webhook_conflicts").await == 2
    })
    .await;
    stop.cancel();
    retaining.await.unwrap();
    let left: Vec<String> =
        sqlx::query_scalar("SELECT transaction_id FROM webhook_conflict_totals").fetch_all(&pool).await.unwrap();
    assert_eq!(left, ["young"]);
    assert_eq!(system.count("SELECT count(*) FROM transactions").await, 2, "the transactions stay");
}

#[tokio::test]
async fn counts_of_repeated_webhooks_are_deleted_after_the_same_retention() {
    let system = System::start(&[]).await;
    let pool = system.database.pool().await;
    let counted = "INSERT INTO webhook_replays (transaction_id, times, first_at, last_at)
                   SELECT 'old ' || n, 2, now() - interval '90 days', now() - interval '30 days 1 s'
                   FROM generate_series(1, 12000) AS n;
                   INSERT INTO webhook_replays (transaction_id, times, first_at, last_at)
                   VALUES ('young', 2, now() - interval '90 days', now() - interval '29 days'), ('locked', 1, now(),
                           now() - interval '31 days')";
    sqlx::raw_sql(counted).execute(&pool).await.unwrap();
    let mut other = pool.begin().await.unwrap();
    sqlx::query("SELECT FROM webhook_replays WHERE transaction_id = 'locked' FOR UPDATE")
        .execute(&mut *other)
        .await
        .unwrap();
    let stop = CancellationToken::new();
    let queue = Queue::start(pool.clone().into());
    let transactions = Transactions::start(&pool.clone().into(), &queue, &Config::default(), stop.clone()).unwrap();
    let often = Retention { every: Duration::from_millis(5), ..Retention::DEFAULT };
    let retaining = tokio::spawn(transactions.delete_expired_replays(often));
    let left = "SELECT count(*) FROM webhook_replays";
    eventually("the old counts are deleted, more than one step reads", SOON, async || system.count(left).await == 2)
        .await;
    other.rollback().await.unwrap();
    eventually("the other one is deleted when it is free", SOON, async || system.count(left).await == 1).await;
    stop.cancel();
    retaining.await.unwrap();
    let left: Vec<String> =
        sqlx::query_scalar("SELECT transaction_id FROM webhook_replays").fetch_all(&pool).await.unwrap();
    assert_eq!(left, ["young"]);
}
