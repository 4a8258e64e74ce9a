//! Internal ids: in creation order by the database's clock, across all API processes.

use tokio::task::JoinSet;

use super::{System, WEBHOOKS, webhook};
use crate::harness::{http::send, process::Api};

#[tokio::test]
async fn ids_are_in_creation_order_across_processes() {
    let system = System::start(&[]).await;
    let other = Api::start(&system.database.url, &[]).await;
    for round in 0..10 {
        let mut requests = JoinSet::new();
        for number in 0..60 {
            // Every tenth goes to both processes, which must agree on one id.
            let body = webhook(&format!("{round}-{number}")).to_string();
            let to_other =
                system.client.post(format!("{}{WEBHOOKS}", other.url)).header("content-type", "application/json");
            if number % 10 == 0 || number % 2 == 1 {
                requests.spawn(send(to_other.body(body.clone())));
            }
            if number % 2 == 0 {
                requests.spawn(send(system.post_webhook(body)));
            }
        }
        assert!(requests.join_all().await.iter().all(|response| response.status == 202));
    }
    assert_eq!(system.count("SELECT count(*) FROM transactions").await, 600);
    let batches = system.count("SELECT count(DISTINCT created_at) FROM transactions").await;
    assert!(batches >= 10, "{batches}");
    let misplaced = "SELECT count(*) FROM (SELECT row_number() OVER (ORDER BY id) AS by_id,
                                                  row_number() OVER (ORDER BY created_at, id) AS by_time
                                           FROM transactions) AS places WHERE by_id <> by_time";
    assert_eq!(system.count(misplaced).await, 0);

    // The layout of RFC 9562: milliseconds, version, the remaining microseconds in 4096ths, variant.
    let wrong = "SELECT count(*)
                 FROM (SELECT replace(id::text, '-', '') AS hex,
                              (extract(epoch FROM created_at) * 1000000)::int8 AS us FROM transactions) AS read
                 WHERE ('x' || lpad(substr(hex, 1, 12), 16, '0'))::bit(64)::int8 <> us / 1000
                    OR substr(hex, 13, 1) <> '7'
                    OR ('x' || lpad(substr(hex, 14, 3), 8, '0'))::bit(32)::int4 <> floor(us % 1000 * 4.096)
                    OR substr(hex, 17, 1) NOT IN ('8', '9', 'a', 'b')";
    assert_eq!(system.count(wrong).await, 0);
    // Each job has the same number as its transaction, encoded as a ULID.
    assert_eq!(system.count("SELECT count(*) FROM apalis.jobs WHERE job_type = 'process_transaction'").await, 600);
    let ids: Vec<uuid::Uuid> =
        sqlx::query_scalar("SELECT id FROM transactions").fetch_all(&system.database.pool().await).await.unwrap();
    let jobs: Vec<String> = ids.into_iter().map(|id| queue::JobId::from(id).to_string()).collect();
    let known = "SELECT count(*) FROM apalis.jobs WHERE id = ANY($1)";
    let known: i64 = sqlx::query_scalar(known).bind(jobs).fetch_one(&system.database.pool().await).await.unwrap();
    assert_eq!(known, 600);
}
