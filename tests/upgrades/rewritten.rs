//! Migrations that change rows: the data afterwards is as expected.

use std::time::Duration;

use runtime::migrate;
use sqlx::PgPool;

use super::{empty_database, execute, value};

/// A database at the schema just before a migration.
async fn before(version: i64) -> (crate::harness::database::TestDatabase, PgPool) {
    let (database, pool) = empty_database().await;
    let earlier = super::versions().await.into_iter().filter(|other| *other < version).max();
    migrate::run_to(&pool.clone().into(), earlier, Duration::ZERO).await.unwrap();
    (database, pool)
}

#[tokio::test]
async fn the_first_20_conflicts_of_each_id_stay_and_all_are_counted() {
    const VERSION: i64 = 20_261_128_140_000;
    let (_database, pool) = before(VERSION).await;
    execute(
        &pool,
        "INSERT INTO transactions (id, transaction_id, source_account, destination_account, amount, currency, created_at, due_at)
         SELECT gen_random_uuid(), id, 'a', 'b', 1, 'INR', now(), now() FROM (VALUES ('few'), ('many'), ('none')) AS ids (id);
         INSERT INTO webhook_conflicts (transaction_id, payload, digest, fields, times, first_at)
         SELECT id, to_jsonb(n), sha256(convert_to(n::text, 'UTF8')), '{amount}', n, now() - make_interval(secs => 1000 - n)
         FROM (VALUES ('few', 3), ('many', 50)) AS ids (id, payloads), generate_series(1, payloads) AS n",
    )
    .await;
    migrate::run_to(&pool.clone().into(), Some(VERSION), Duration::ZERO).await.unwrap();
    let totals = "SELECT string_agg(format('%s %s', transaction_id, times), ', ' ORDER BY transaction_id)
                  FROM webhook_conflict_totals";
    assert_eq!(value(&pool, totals).await, "few 6, many 1275");
    let kept = "SELECT string_agg(format('%s %s-%s', transaction_id, least, most), ', ' ORDER BY transaction_id)
                FROM (SELECT transaction_id, min(payload::int) AS least, max(payload::int) AS most
                      FROM webhook_conflicts GROUP BY transaction_id) AS kept";
    assert_eq!(value(&pool, kept).await, "few 1-3, many 1-20");
}

#[tokio::test]
async fn dead_jobs_of_pending_rates_run_again() {
    const VERSION: i64 = 20_261_128_140_100;
    let (_database, pool) = before(VERSION).await;
    execute(
        &pool,
        r#"INSERT INTO interest_rates (id, backend, rate, assets, state, saved_at) VALUES
             ('01990000-0000-7000-8000-000000000001', 'smart_contract', 1, '[]', 'pending', NULL),
             ('01990000-0000-7000-8000-000000000002', 'smart_contract', 1, '[]', 'saved', now()),
             ('01990000-0000-7000-8000-000000000003', 'smart_contract', 1, '[]', 'withdrawn', NULL),
             ('01990000-0000-7000-8000-000000000004', 'smart_contract', 1, '[]', 'pending', NULL);
           INSERT INTO apalis.jobs (id, job_type, job, status, priority, failures, last_result, done_at)
           SELECT name, job_type, convert_to(payload, 'UTF8'), 'Killed', 0, 10, jsonb_build_object('Err', error), now()
           FROM (VALUES
             ('refused', 'reconcile_rate', '{"id":"01990000-0000-7000-8000-000000000001"}', 'refused'),
             ('saved', 'reconcile_rate', '{"id":"01990000-0000-7000-8000-000000000002"}', 'refused'),
             ('withdrawn', 'reconcile_rate', '{"id":"01990000-0000-7000-8000-000000000003"}', 'refused'),
             ('cancelled', 'reconcile_rate', '{"id":"01990000-0000-7000-8000-000000000004"}', 'cancelled by operator'),
             ('no JSON', 'reconcile_rate', 'nonsense', 'refused'),
             ('another', 'index_item', '{"id":"01990000-0000-7000-8000-000000000001"}', 'refused'))
             AS jobs (name, job_type, payload, error);
           UPDATE apalis.jobs SET job = '\x00ff' WHERE id = 'no JSON'"#,
    )
    .await;
    migrate::run_to(&pool.clone().into(), Some(VERSION), Duration::ZERO).await.unwrap();
    let waiting = "SELECT string_agg(format('%s %s', id, failures), ', ') FROM apalis.jobs WHERE status = 'Pending'";
    assert_eq!(value(&pool, waiting).await, "refused 0");
}
