//! The list of transactions: newest first, in pages without a gap or a repetition, filtered by status.

use std::collections::HashSet;

use queue::JobId;
use uuid::Uuid;

use super::{System, assert_ok, time_of};
use crate::harness::http::send;

impl System {
    /// Follows the `Link` headers to the last page. Returns the ids of each page.
    async fn list_pages(&self, first: &str) -> Vec<Vec<String>> {
        let (mut path, mut pages) = (first.to_owned(), Vec::new());
        loop {
            let response = send(self.get(&path)).await;
            assert_ok(&response, 200, &path);
            let page = response.json().as_array().cloned().expect("a bare array");
            assert!(page.is_sorted_by_key(|entry| std::cmp::Reverse(time_of(&entry["created_at"]))), "{page:?}");
            pages.push(page.iter().map(|entry| entry["transaction_id"].as_str().unwrap().to_owned()).collect());
            let link = response.header("link");
            if link.is_empty() {
                return pages;
            }
            let next = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\""));
            path = next.unwrap_or_else(|| panic!("{link}")).to_owned();
            assert!(pages.len() < 100, "more than 100 pages: {path}");
        }
    }
}

#[tokio::test]
async fn transaction_pages_have_no_gap_and_no_repetition() {
    let system = System::start(&[]).await;
    let empty = send(system.get("/v1/transactions")).await;
    assert_eq!((empty.status, &*empty.text, empty.header("link")), (200, "[]\n", ""));

    // Concurrently, so that many share a commit and with it their creation time.
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..47 {
        requests.spawn(send(system.post_webhook(super::webhook(&format!("a b/é {number}")).to_string())));
    }
    assert!(requests.join_all().await.iter().all(|response| response.status == 202));
    let newest = system.send_webhook("newest").await;
    let all = system.list_pages("/v1/transactions?limit=10").await;
    assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 10, 10, 8]);
    let distinct: HashSet<_> = all.iter().flatten().collect();
    assert_eq!(distinct.len(), 48);
    assert_eq!(all[0][0], "newest");
    let first = send(system.get("/v1/transactions?limit=1")).await.json();
    assert_eq!(first[0], newest, "an entry equals the response of GET");
    for (path, lengths) in [
        ("/v1/transactions", vec![20, 20, 8]),
        ("/v1/transactions?limit=48", vec![48]),
        ("/v1/transactions?limit=47", vec![47, 1]),
        ("/v1/transactions?limit=100", vec![48]),
        ("/v1/transactions?limit=%20+4_8.0", vec![48]),
        ("/v1/transactions?status=PROCESSING", vec![20, 20, 8]),
        ("/v1/transactions?status=PROCESSED", vec![0]),
    ] {
        assert_eq!(system.list_pages(path).await.iter().map(Vec::len).collect::<Vec<_>>(), lengths, "{path}");
    }

    // The next page does not change when transactions are added or settled meanwhile.
    let response = send(system.get("/v1/transactions?limit=10")).await;
    let next = response.header("link").split(['<', '>']).nth(1).unwrap().to_owned();
    system.send_webhook("later").await;
    let settled = "UPDATE transactions SET status = 'PROCESSED', processed_at = now()
                   WHERE transaction_id IN (SELECT transaction_id FROM transactions ORDER BY transaction_id LIMIT 23)";
    sqlx::query(settled).execute(&system.database.pool().await).await.unwrap();
    let rest = system.list_pages(&next).await.concat();
    assert_eq!(rest, all[1..].concat());

    let processed = system.list_pages("/v1/transactions?status=PROCESSED&limit=9").await;
    assert_eq!(processed.iter().map(Vec::len).collect::<Vec<_>>(), [9, 9, 5]);
    assert!(send(system.get("/v1/transactions?status=PROCESSED&limit=9")).await.header("link").contains("PROCESSED"));
    let processing = system.list_pages("/v1/transactions?status=PROCESSING&limit=9").await.concat();
    let mut together: Vec<_> = processed.concat().into_iter().chain(processing).collect();
    together.sort();
    together.dedup();
    assert_eq!(together.len(), 49);
}

impl System {
    /// Inserts transactions with these statuses, one a millisecond. The first one is `from` milliseconds after the start
    /// of 2026. Each is named after its millisecond.
    async fn insert_transactions(&self, from: u128, statuses: &[&str]) -> Vec<Uuid> {
        const YEAR: u128 = 1_767_225_600_000;
        let times: Vec<u128> = (from..).take(statuses.len()).collect();
        let ids = times.iter().map(|time| Uuid::from_u128((YEAR + time) << 80 | 0x7 << 76 | 0x2 << 62 | time));
        let ids: Vec<Uuid> = ids.collect();
        let insert = "INSERT INTO transactions (id, transaction_id, source_account, destination_account, amount, currency,
                                                status, error, created_at, due_at, processed_at)
                      SELECT id, name, 'a', 'b', 1, 'INR', status, CASE WHEN status = 'FAILED' THEN 'refused' END, at, at,
                             CASE WHEN status <> 'PROCESSING' THEN at END
                      FROM unnest($1::uuid[], $2::text[], $3::text[]) AS new (id, name, status)
                      CROSS JOIN to_timestamp(1767225600 + name::float8 / 1000) AS at";
        let names: Vec<String> = times.iter().map(u128::to_string).collect();
        let query = sqlx::query(insert).bind(&ids).bind(names).bind(statuses);
        query.execute(&self.database.pool().await).await.unwrap();
        ids
    }

    /// Inserts a job for each of these transactions. Every tenth is running, the others are pending.
    async fn insert_jobs(&self, transactions: &[Uuid]) {
        let ids: Vec<String> = transactions.iter().map(|id| JobId::from(*id).to_string()).collect();
        let insert = "INSERT INTO apalis.jobs (id, job_type, job, run_at, status, lock_by)
                      SELECT id, 'process_transaction', '', now() + interval '1 hour',
                             CASE WHEN n % 10 = 0 THEN 'Running' ELSE 'Pending' END, CASE WHEN n % 10 = 0 THEN 'w' END
                      FROM unnest($1::text[]) WITH ORDINALITY AS new (id, n)";
        sqlx::query(insert).bind(&ids).execute(&self.database.pool().await).await.unwrap();
    }
}

/// With up to 10,000 live jobs, PROCESSING transactions are read from the jobs. Beyond that, the whole table is scanned.
#[tokio::test]
async fn rare_statuses_are_found_among_many_transactions() {
    const ROWS: usize = 40_000;
    let system = System::start(&[]).await;
    // The newest twenty transactions with a job are settled already, and their jobs are not done yet.
    let has_job = |n: &usize| n % 4 == 1;
    let status = |n: usize| match n {
        n if has_job(&n) && n < ROWS - 80 => "PROCESSING",
        n if n % 160 == 2 => "FAILED",
        _ => "PROCESSED",
    };
    let statuses: Vec<&str> = (0..ROWS).map(status).collect();
    let expected = |wanted: &str| -> Vec<String> {
        let newest_first = (0..ROWS).rev().filter(|n| status(*n) == wanted);
        newest_first.map(|n| n.to_string()).collect()
    };
    let ids = system.insert_transactions(0, &statuses).await;
    let live: Vec<Uuid> = (0..ROWS).filter(has_job).map(|n| ids[n]).collect();
    assert_eq!(live.len(), 10_000);
    system.insert_jobs(&live).await;

    let processing = system.list_pages("/v1/transactions?status=PROCESSING&limit=100").await.concat();
    assert_eq!(processing, expected("PROCESSING"), "read from 10,000 jobs");
    let fail_one_transaction = system.list_pages("/v1/transactions?status=FAILED&limit=90").await;
    assert_eq!(fail_one_transaction.iter().map(Vec::len).collect::<Vec<_>>(), [90, 90, 70]);
    assert_eq!(fail_one_transaction.concat(), expected("FAILED"));
    let list = async |path: &str| -> Vec<String> {
        let page = send(system.get(path)).await.json();
        page.as_array().unwrap().iter().map(|entry| entry["transaction_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(list("/v1/transactions?status=PROCESSED&limit=100").await, expected("PROCESSED")[..100]);
    let all: Vec<String> = (0..ROWS).rev().take(100).map(|n| n.to_string()).collect();
    assert_eq!(list("/v1/transactions?limit=100").await, all);

    let newer = system.insert_transactions(ROWS as u128, &["PROCESSING"]).await;
    system.insert_jobs(&newer).await;
    let processing = system.list_pages("/v1/transactions?status=PROCESSING&limit=100").await.concat();
    assert_eq!(processing, [vec![ROWS.to_string()], expected("PROCESSING")].concat(), "read by a scan of the table");
}

#[tokio::test]
async fn every_invalid_list_parameter_is_named() {
    let system = System::start(&[]).await;
    for (query, failures) in [
        ("limit=0", vec!["greater_than_equal limit Input should be greater than or equal to 1"]),
        ("limit=-5", vec!["greater_than_equal limit Input should be greater than or equal to 1"]),
        ("limit=101", vec!["less_than_equal limit Input should be less than or equal to 100"]),
        ("limit=ten", vec!["int_parsing limit Input should be a valid integer, unable to parse string as an integer"]),
        ("status=DONE", vec!["enum status Input should be 'PROCESSING', 'PROCESSED' or 'FAILED'"]),
        ("status=processed", vec!["enum status Input should be 'PROCESSING', 'PROCESSED' or 'FAILED'"]),
        ("cursor=x", vec!["value_error cursor Value error, cursor must be one that a Link header gave"]),
        ("cursor=MTIz", vec!["value_error cursor Value error, cursor must be one that a Link header gave"]),
        // The format of an earlier release: the creation time and the id.
        (
            "cursor=MTcwNDA2NzIwMDAwMDAwMDph",
            vec!["value_error cursor Value error, cursor must be one that a Link header gave"],
        ),
        ("cursor=%00", vec!["value_error cursor Value error, text must not contain NUL"]),
        ("limit=99999999999999999999", vec!["less_than_equal limit Input should be less than or equal to 100"]),
        (
            "status=%FF",
            vec!["string_unicode status Input should be a valid string, unable to parse raw data as a unicode string"],
        ),
        (
            "status=&limit=&cursor=",
            vec![
                "enum status Input should be 'PROCESSING', 'PROCESSED' or 'FAILED'",
                "int_parsing limit Input should be a valid integer, unable to parse string as an integer",
                "value_error cursor Value error, cursor must be one that a Link header gave",
            ],
        ),
        (
            "status=x&limit=x&cursor=x",
            vec![
                "enum status Input should be 'PROCESSING', 'PROCESSED' or 'FAILED'",
                "int_parsing limit Input should be a valid integer, unable to parse string as an integer",
                "value_error cursor Value error, cursor must be one that a Link header gave",
            ],
        ),
    ] {
        let response = send(system.get(&format!("/v1/transactions?{query}"))).await;
        response.assert_problem(422, query);
        let found = response.validation_errors().into_iter().map(|(kind, loc, msg)| {
            let name = loc.trim_start_matches("[\"query\",\"").trim_end_matches("\"]").to_owned();
            format!("{kind} {name} {msg}")
        });
        assert_eq!(found.collect::<Vec<_>>(), failures, "{query}");
    }
}
