//! Interest rates in PostgreSQL: submission, average, current rate, history and idempotency.

use reqwest::Method;
use serde_json::{Value, json};

use super::{SAVED, one_asset, start};
use crate::harness::http::send;

#[tokio::test]
async fn the_documented_session_works_on_postgres() {
    let system = start(&[]).await;
    let welcome = system.get_with_key("/").await;
    assert_eq!(welcome.json()["storage_backend"], "postgres");
    let missing = system.get_with_key("/interest_rate").await;
    let problem = missing.assert_problem(404, "before any submission");
    assert_eq!(problem["detail"], "No interest rate found. Please update assets first.");
    assert_eq!(system.get_with_key("/interest_rate/history").await.json(), json!([]));

    let assets = json!([{"id": "id-1", "interest_rate": 100}, {"id": "id-2", "interest_rate": 10}]);
    let saved = system.submit(assets).await;
    assert_eq!((saved.status, saved.json()), (200, json!({"message": SAVED})), "{saved:?}");
    let current = system.get_with_key("/interest_rate").await.json();
    assert_eq!(current["interest_rate"], "55.0");
    let time = current["updated_at"].as_str().expect("a time");
    assert!(time.ends_with('Z') && time.len() == "2025-10-15T18:22:51.768546Z".len(), "{time}");
    assert_eq!(current.as_object().expect("an object").len(), 2, "{current}");
}

#[tokio::test]
async fn averages_are_exact_decimals() {
    let system = start(&[]).await;
    for (assets, average) in [
        (r#"[{"id":"a","interest_rate":0.1},{"id":"b","interest_rate":0.2}]"#, "0.15"),
        (
            r#"[{"id":"a","interest_rate":1},{"id":"a","interest_rate":2},{"id":"","interest_rate":2}]"#,
            "1.666666666666666667",
        ),
        (r#"[{"id":"a","interest_rate":99999999999999999999.99999999999999999999}]"#, "100000000000000000000.0"),
        (r#"[{"id":"a","interest_rate":0.0000000000000000005}]"#, "0.0"),
        (r#"[{"id":"a","interest_rate":0.0000000000000000015}]"#, "0.000000000000000002"),
        (r#"[{"id":"a","interest_rate":" 1e-3 "},{"id":"b","interest_rate":true}]"#, "0.5005"),
        (r#"[{"id":"a","interest_rate":0e1000000000000000000},{"id":"b","interest_rate":"1_0.5"}]"#, "5.25"),
    ] {
        let saved = send(system.request_with_key(Method::POST, "/asset").body(assets)).await;
        assert_eq!(saved.status, 200, "{assets}: {saved:?}");
        assert_eq!(system.current_rate().await, average, "{assets}");
    }
}

#[tokio::test]
async fn the_history_is_newest_first_and_survives_a_restart() {
    let mut system = start(&[]).await;
    for rate in 1..=7 {
        assert_eq!(system.submit(one_asset(rate)).await.status, 200);
    }
    system.api = super::start_api(&system.database, &[]).await;
    let all = ["7.0", "6.0", "5.0", "4.0", "3.0", "2.0", "1.0"];
    for limit in [1, 3, 7, 100] {
        assert_eq!(system.history(limit).await, all, "{limit} a page");
    }
    for (query, field) in
        [("limit=0", "limit"), ("limit=x", "limit"), ("cursor=x", "cursor"), ("cursor=AAAA", "cursor")]
    {
        let refused = system.get_with_key(&format!("/interest_rate/history?{query}")).await;
        refused.assert_problem(422, query);
        assert!(refused.validation_errors()[0].1.contains(field), "{query}: {refused:?}");
    }
}

#[tokio::test]
async fn every_invalid_asset_is_named() {
    let system = start(&[]).await;
    let negative = "Input should be greater than or equal to 0";
    let number = "Input should be a valid number";
    for (body, expected) in [
        (json!([]), vec![("too_short", r#"["body"]"#, "List should have at least 1 item after validation, not 0")]),
        (json!({"id": "x"}), vec![("list_type", r#"["body"]"#, "Input should be a valid list")]),
        (json!("x"), vec![("list_type", r#"["body"]"#, "Input should be a valid list")]),
        (one_asset(-1), vec![("greater_than_equal", r#"["body",0,"interest_rate"]"#, negative)]),
        (one_asset(Value::Null), vec![("float_type", r#"["body",0,"interest_rate"]"#, number)]),
        (one_asset("NaN"), vec![("finite_number", r#"["body",0,"interest_rate"]"#, "Input should be a finite number")]),
        (
            json!([{"id": "a", "interest_rate": 1}, {"interest_rate": "x"}, {"id": 5}, 7]),
            vec![
                ("missing", r#"["body",1,"id"]"#, "Field required"),
                (
                    "float_parsing",
                    r#"["body",1,"interest_rate"]"#,
                    "Input should be a valid number, unable to parse string as a number",
                ),
                ("string_type", r#"["body",2,"id"]"#, "Input should be a valid string"),
                ("missing", r#"["body",2,"interest_rate"]"#, "Field required"),
                (
                    "model_attributes_type",
                    r#"["body",3]"#,
                    "Input should be a valid dictionary or object to extract fields from",
                ),
            ],
        ),
    ] {
        let refused = system.submit(body.clone()).await;
        refused.assert_problem(422, &body.to_string());
        let failures = refused.validation_errors();
        let failures: Vec<_> = failures.iter().map(|(kind, loc, msg)| (&**kind, &**loc, &**msg)).collect();
        assert_eq!(failures, expected, "{body}");
    }
    for (body, status) in [("[{]", 400), ("", 422), (r#"[{"id":"a","interest_rate":1,"id":"b"}]"#, 422)] {
        send(system.request_with_key(Method::POST, "/asset").body(body)).await.assert_problem(status, body);
    }
    assert_eq!(system.history(10).await, [""; 0], "no rate is saved");
}

#[tokio::test]
async fn an_idempotency_key_is_saved_once() {
    let system = start(&[]).await;
    let first = system.submit_idempotent("k-1", one_asset(5)).await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (200, ""), "{first:?}");
    assert_eq!(system.submit(one_asset(6)).await.status, 200);
    let again = system.submit_idempotent("k-1", json!([{"interest_rate": "5.00", "id": "id-1", "x": 0}])).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (200, "true"), "{again:?}");
    assert_eq!(again.json(), first.json());
    for other in [
        one_asset(7),
        json!([{"id": "id-2", "interest_rate": 5}]),
        json!([{"id": "id-1", "interest_rate": 5}, {"id": "id-1", "interest_rate": 5}]),
    ] {
        system.submit_idempotent("k-1", other).await.assert_problem(422, "another body");
    }
    assert_eq!(system.submit_idempotent("K-1", one_asset(8)).await.status, 200, "keys are case-sensitive");
    assert_eq!(system.history(10).await, ["8.0", "6.0", "5.0"]);
    for key in ["", &*"k".repeat(256), "k\tk"] {
        let refused = system.submit_idempotent(key, one_asset(1)).await;
        refused.assert_problem(422, key);
        assert_eq!(refused.validation_errors()[0].1, r#"["header","Idempotency-Key"]"#);
    }
    let refused = system.submit_idempotent("", one_asset(-1)).await;
    let fields: Vec<_> = refused.validation_errors().into_iter().map(|failure| failure.1).collect();
    assert_eq!(fields, [r#"["header","Idempotency-Key"]"#, r#"["body",0,"interest_rate"]"#]);
    assert_eq!(system.submit_idempotent(&"k".repeat(255), one_asset(9)).await.status, 200);
}

#[tokio::test]
async fn concurrent_submissions_with_one_key_save_one_rate() {
    let system = start(&[]).await;
    let all = futures_util::future::join_all((0..40).map(|_| system.submit_idempotent("one", one_asset(3)))).await;
    assert!(all.iter().all(|response| response.status == 200), "{all:?}");
    assert_eq!(all.iter().filter(|response| response.header("idempotency-replayed").is_empty()).count(), 1);
    assert_eq!(system.history(10).await, ["3.0"]);
}

#[tokio::test]
async fn lists_are_limited_to_1_mib() {
    let system = start(&[]).await;
    let list = |count: usize| Value::from_iter((1..=count).map(|n| json!({"id": "id", "interest_rate": n})));
    assert_eq!(system.submit(list(25_000)).await.status, 200);
    assert_eq!(system.current_rate().await, "12500.5");
    system.submit(list(50_000)).await.assert_problem(413, "more than 1 MiB");
    let nothing = format!("[{}]", ["{}"; 300_000].join(","));
    let refused = send(system.request_with_key(Method::POST, "/asset").body(nothing)).await;
    refused.assert_problem(422, "nothing but empty objects");
    assert!(refused.text.len() < 100_000, "the response is smaller than its request: {}", refused.text.len());
}
