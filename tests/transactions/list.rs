//! The list: newest first, page by page, without a gap or a repetition.

use std::collections::HashSet;

use super::{System, assert_ok, time_of};
use crate::harness::http::ask;

impl System {
    /// Follows the list to its end; the ids of each page.
    async fn walk(&self, first: &str) -> Vec<Vec<String>> {
        let (mut path, mut pages) = (first.to_owned(), Vec::new());
        loop {
            let answer = ask(self.get(&path)).await;
            assert_ok(&answer, 200, &path);
            let page = answer.json().as_array().cloned().expect("a bare array");
            assert!(page.is_sorted_by_key(|entry| std::cmp::Reverse(time_of(&entry["created_at"]))), "{page:?}");
            pages.push(page.iter().map(|entry| entry["transaction_id"].as_str().unwrap().to_owned()).collect());
            let link = answer.header("link");
            if link.is_empty() {
                return pages;
            }
            let next = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\""));
            path = next.unwrap_or_else(|| panic!("{link}")).to_owned();
            assert!(pages.len() < 100, "no end: {path}");
        }
    }
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repetition() {
    let system = System::start(&[]).await;
    let empty = ask(system.get("/v1/transactions")).await;
    assert_eq!((empty.status, &*empty.text, empty.header("link")), (200, "[]", ""));

    // At once, so that many share a commit and with it their time of creation.
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..47 {
        requests.spawn(ask(system.post(super::webhook(&format!("a b/é {number}")).to_string())));
    }
    assert!(requests.join_all().await.iter().all(|answer| answer.status == 202));
    let newest = system.send("newest").await;
    let all = system.walk("/v1/transactions?limit=10").await;
    assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 10, 10, 8]);
    let distinct: HashSet<_> = all.iter().flatten().collect();
    assert_eq!(distinct.len(), 48);
    assert_eq!(all[0][0], "newest");
    let first = ask(system.get("/v1/transactions?limit=1")).await.json();
    assert_eq!(first[0], newest, "an entry is the transaction as GET shows it");
    for (path, lengths) in [
        ("/v1/transactions", vec![20, 20, 8]),
        ("/v1/transactions?limit=48", vec![48]),
        ("/v1/transactions?limit=47", vec![47, 1]),
        ("/v1/transactions?limit=100", vec![48]),
        ("/v1/transactions?status=&limit=&cursor=", vec![20, 20, 8]),
        ("/v1/transactions?status=PROCESSING", vec![20, 20, 8]),
        ("/v1/transactions?status=PROCESSED", vec![0]),
    ] {
        assert_eq!(system.walk(path).await.iter().map(Vec::len).collect::<Vec<_>>(), lengths, "{path}");
    }

    // Whatever is added or settled meanwhile, a walk goes on where it was.
    let answer = ask(system.get("/v1/transactions?limit=10")).await;
    let next = answer.header("link").split(['<', '>']).nth(1).unwrap().to_owned();
    system.send("later").await;
    let settled = "UPDATE transactions SET status = 'PROCESSED', processed_at = now()
                   WHERE transaction_id IN (SELECT transaction_id FROM transactions ORDER BY transaction_id LIMIT 23)";
    sqlx::query(settled).execute(&system.database.pool().await).await.unwrap();
    let rest = system.walk(&next).await.concat();
    assert_eq!(rest, all[1..].concat());

    let processed = system.walk("/v1/transactions?status=PROCESSED&limit=9").await;
    assert_eq!(processed.iter().map(Vec::len).collect::<Vec<_>>(), [9, 9, 5]);
    assert!(ask(system.get("/v1/transactions?status=PROCESSED&limit=9")).await.header("link").contains("PROCESSED"));
    let processing = system.walk("/v1/transactions?status=PROCESSING&limit=9").await.concat();
    let mut together: Vec<_> = processed.concat().into_iter().chain(processing).collect();
    together.sort();
    together.dedup();
    assert_eq!(together.len(), 49);
}

#[tokio::test]
async fn wrong_parameters_are_all_named() {
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
        ("cursor=%00", vec!["value_error cursor Value error, text must not contain NUL"]),
        (
            "status=x&limit=x&cursor=x",
            vec![
                "enum status Input should be 'PROCESSING', 'PROCESSED' or 'FAILED'",
                "int_parsing limit Input should be a valid integer, unable to parse string as an integer",
                "value_error cursor Value error, cursor must be one that a Link header gave",
            ],
        ),
    ] {
        let answer = ask(system.get(&format!("/v1/transactions?{query}"))).await;
        answer.assert_problem(422, query);
        let found = answer.failures().into_iter().map(|(kind, loc, msg)| {
            let name = loc.trim_start_matches("[\"query\",\"").trim_end_matches("\"]").to_owned();
            format!("{kind} {name} {msg}")
        });
        assert_eq!(found.collect::<Vec<_>>(), failures, "{query}");
    }
}
