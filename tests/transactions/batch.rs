//! Many webhooks in one request: a verdict for each row.

use std::{collections::HashSet, time::Duration};

use futures_util::future::join_all;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    System, assert_ok,
    signatures::{headers, secret, sign},
    webhook,
};
use crate::harness::{
    eventually,
    http::{HttpResponse, send},
    system::WEBHOOKS,
};

const SOON: Duration = Duration::from_secs(20);
const KEY: &[u8] = b"the secret of one sender only";
const MIB: usize = 1 << 20;

impl System {
    async fn send_batch(&self, content_type: &str, body: impl Into<reqwest::Body>) -> HttpResponse {
        let request = self.request(reqwest::Method::POST, &format!("{WEBHOOKS}/batch"));
        send(request.header("content-type", content_type).body(body)).await
    }
}

/// Each verdict as `id status outcome`.
fn verdicts(response: &HttpResponse) -> Vec<String> {
    assert_ok(response, 200, "a batch");
    let text = |verdict: &Value| {
        let id = verdict.get("transaction_id").expect("each verdict has it").as_str().unwrap_or("-");
        format!("{id} {} {}", verdict["status"], verdict["outcome"].as_str().expect("an outcome"))
    };
    response.json().as_array().expect("a list").iter().map(text).collect()
}

/// The same row with another value of a field.
fn with(row: &Value, field: &str, value: impl Into<Value>) -> Value {
    let mut row = row.clone();
    row[field] = value.into();
    row
}

fn with_amount(id: &str, amount: impl Into<Value>) -> Value {
    with(&webhook(id), "amount", amount)
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

#[tokio::test]
async fn each_row_has_a_verdict_and_good_rows_are_recorded() {
    let system = System::start(&[("PROCESSING_DELAY_SECONDS", "0")]).await;
    let _worker = system.start_worker(&[]).await;
    system.send_webhook("known").await;
    let rows = [
        webhook("a"),
        webhook("known"),
        with_amount("known", 7),
        with_amount("bad", -1),
        with_amount("a", "1500.00"),
        with_amount("a", 8),
        json!({"amount": 1}),
        json!([]),
        webhook("b"),
    ];
    let first = [
        "a 202 new",
        "known 202 replayed",
        "known 409 conflict",
        "bad 422 invalid",
        "a 202 replayed",
        "a 409 conflict",
        "- 422 invalid",
        "- 422 invalid",
        "b 202 new",
    ];
    let response = system.send_batch("application/json", json!(rows).to_string()).await;
    assert_eq!(verdicts(&response), first);
    let json = response.json();
    assert_eq!(json[2]["fields"], json!(["amount"]));
    assert_eq!(
        (&json[3]["errors"][0]["loc"], &json[3]["errors"][0]["type"]),
        (&json!(["body", 3, "amount"]), &json!("greater_than"))
    );
    assert_eq!(json[6]["errors"].as_array().map(Vec::len), Some(4), "{json}");
    assert!(json[0].get("errors").is_none() && json[0].get("fields").is_none(), "{json}");

    // The same again as NDJSON, with a line that is broken: nothing is new.
    let body = format!("{}not json\n\n", lines(&rows).replace('\n', "\r\n"));
    let again: Vec<String> = first.iter().map(|verdict| verdict.replace(" new", " replayed")).collect();
    let response = system.send_batch("application/x-ndjson", body).await;
    assert_eq!(verdicts(&response), [&again[..], &["- 422 invalid".to_owned()]].concat());
    assert_eq!(response.json()[9]["errors"][0]["type"], "json_invalid");

    for id in ["a", "b", "known"] {
        assert_eq!(system.wait_until_settled(id).await["status"], "PROCESSED");
    }
    assert_eq!(system.count("SELECT count(*) FROM transactions").await, 3);
    // A worker has jobs of a schedule too.
    let jobs = "SELECT count(*) FROM apalis.jobs WHERE job_type = 'process_transaction'";
    assert_eq!(system.count(jobs).await, 3);
    let conflicts = "SELECT sum(times)::int8 FROM webhook_conflict_totals";
    assert_eq!(system.count(conflicts).await, 4, "two conflicts, each sent twice");
    assert_eq!(system.metric("millrace_webhooks_accepted_total{outcome=\"new\"}").await, 3);
}

#[tokio::test]
async fn the_first_row_of_an_id_counts_in_a_full_batch() {
    let system = System::start(&[]).await;
    // The repetitions are further away than the rows of one commit.
    let rows: Vec<Value> = (0..1000).map(|n| with_amount(&format!("t-{}", n % 700), n + 1)).collect();
    let response = system.send_batch("application/json", json!(rows).to_string()).await;
    let verdicts = verdicts(&response);
    assert_eq!(verdicts.len(), 1000);
    for (n, verdict) in verdicts.iter().enumerate() {
        let expected = if n < 700 { "202 new" } else { "409 conflict" };
        assert_eq!(*verdict, format!("t-{} {expected}", n % 700), "row {n}");
    }
    let wrong = "SELECT count(*) FROM transactions WHERE amount > 700";
    assert_eq!(system.count(wrong).await, 0, "the first payload of each id stands");
}

/// Texts and amounts at the limits of their fields, each with the amount that is stored.
fn extremes() -> Vec<(String, String, &'static str)> {
    // Characters of four bytes, all different: compression does not make their index entries smaller.
    let different =
        |first: u32| -> String { (0..255).map(|n| char::from_u32(first + 4000 * n).expect("a character")).collect() };
    vec![
        (different(0x10000), "999999999999.999999".into(), "999999999999.999999"),
        (different(0x10001), "0.000001".into(), "0.000001"),
        ("\u{10FFFF}".repeat(255), "1e-6".into(), "0.000001"),
        ("e\u{301}".repeat(127), "9.99999999999e11".into(), "999999999999"),
        ("\u{FEFF}\u{FFFF}\u{202E}\u{1}\u{7F}\u{80}\u{2028}".into(), "0.100000".into(), "0.100000"),
        (" ".into(), format!("1.{}", "0".repeat(70)), "1.000000"),
        ("NULL".into(), format!("{}1", "0".repeat(70)), "1"),
        (r#"{"a",\x00,\u0000,'$1';--"#.into(), "999999999999".into(), "999999999999"),
    ]
}

/// Sends a signed batch whose correlation id and `traceparent` are as long as they may be.
async fn post_with_long_headers(system: &System, rows: &[Value]) -> HttpResponse {
    let traceparent = format!("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-{}", "x".repeat(456));
    let (body, now) = (json!(rows).to_string(), OffsetDateTime::now_utc().unix_timestamp().to_string());
    let request = system.request(reqwest::Method::POST, &format!("{WEBHOOKS}/batch"));
    let request = request.header("content-type", "application/json").header("traceparent", traceparent);
    let request = request.header("x-correlation-id", "c".repeat(128));
    let signed = headers("m", &now, &sign(KEY, "m", &now, &body));
    send(signed.iter().fold(request.body(body), |request, (name, value)| request.header(*name, value))).await
}

/// PostgreSQL refuses a whole statement for one text with NUL, one number beyond a constraint, or one index entry above 2,704
/// bytes. No row and no header that validation accepts has one of them.
#[tokio::test]
async fn rows_at_the_limits_of_every_field_are_recorded() {
    let secrets = format!("{}:{}", "s".repeat(64), secret(KEY));
    let system = System::start(&[("WEBHOOK_SECRET", &secrets), ("QUEUE_FAIR_BY", "sender")]).await;
    let row = |(n, (text, amount, _)): (usize, &(String, String, &str))| {
        let extreme = json!({
            "transaction_id": text, "source_account": text, "destination_account": text,
            "amount": amount, "currency": "VES",
        });
        [extreme, webhook(&format!("good-{n}"))]
    };
    let limits = extremes();
    let rows: Vec<Value> = limits.iter().enumerate().flat_map(row).collect();
    let contradicting: Vec<Value> = rows.iter().map(|row| with(row, "amount", "0.000002")).collect();
    for (rows, outcome) in [(&rows, "202 new"), (&rows, "202 replayed"), (&contradicting, "409 conflict")] {
        let verdicts = verdicts(&post_with_long_headers(&system, rows).await);
        assert_eq!(verdicts.len(), rows.len());
        for (row, verdict) in rows.iter().zip(verdicts) {
            assert!(verdict.ends_with(outcome), "{row}: {verdict}");
        }
    }

    let query = "SELECT transaction_id, source_account, destination_account, amount::text FROM transactions";
    let stored: Vec<(String, String, String, String)> =
        sqlx::query_as(query).fetch_all(&system.database.pool().await).await.expect("the rows");
    let stored: HashSet<_> = stored.into_iter().collect();
    for (text, _, amount) in limits {
        assert!(stored.contains(&(text.clone(), text.clone(), text.clone(), amount.to_owned())), "{text:?} {amount}");
    }
    let all = i64::try_from(rows.len()).expect("a number");
    for table in ["transactions WHERE length(sender) = 64 AND length(correlation_id) = 128", "webhook_conflicts"] {
        assert_eq!(system.count(&format!("SELECT count(*) FROM {table}")).await, all, "{table}");
    }
    let jobs = "apalis.jobs WHERE fair_key IS NOT NULL AND length(metadata -> 'traceparent') = 512";
    assert_eq!(system.count(&format!("SELECT count(*) FROM {jobs}")).await, all);
    let replays = "SELECT count(*) FROM webhook_replays";
    eventually("replays are counted", SOON, async || system.count(replays).await == all).await;
    let listed = send(system.get("/v1/transactions?limit=100")).await;
    assert_ok(&listed, 200, "a list");
    assert_eq!(listed.json().as_array().map(Vec::len), Some(rows.len()));
}

/// A constraint of another program refuses what validation accepts.
#[tokio::test]
async fn a_row_that_the_database_refuses_affects_no_other() {
    const REFUSED: [usize; 4] = [0, 77, 78, 199];
    let system = System::start(&[]).await;
    let constraint = "ALTER TABLE transactions ADD CONSTRAINT refuse CHECK (source_account <> 'refused')";
    sqlx::query(constraint).execute(&system.database.pool().await).await.expect("a constraint");
    let mut rows: Vec<Value> = (0..200).map(|n| webhook(&format!("t-{n}"))).collect();
    for n in REFUSED {
        rows[n] = with(&rows[n], "source_account", "refused");
    }
    rows[100] = with_amount("t-100", -1);
    rows[150] = webhook("t-77");
    rows[198] = with_amount("t-1", 7);
    for good in ["202 new", "202 replayed"] {
        let response = system.send_batch("application/json", json!(rows).to_string()).await;
        assert!(!response.text.contains("constraint"), "{}", response.text);
        for (n, verdict) in verdicts(&response).iter().enumerate() {
            let expected = match n {
                _ if REFUSED.contains(&n) => "500 refused",
                100 => "422 invalid",
                198 => "409 conflict",
                _ => good,
            };
            assert!(verdict.ends_with(expected), "row {n}: {verdict}");
        }
        // All but the refused, the invalid and the contradicting ones.
        assert_eq!(system.count("SELECT count(*) FROM transactions").await, 194);
        assert_eq!(system.count("SELECT count(*) FROM apalis.jobs").await, 194);
    }
    let logged = "the database refused rows of a batch";
    eventually("the cause is logged", SOON, async || system.api.process.log().contains(logged)).await;

    let response = system.send_batch("application/json", json!([rows[0], rows[77]]).to_string()).await;
    let problem = response.assert_problem(500, "all are refused");
    assert!(!problem.to_string().contains("constraint"), "{problem}");
}

#[tokio::test]
async fn bodies_that_are_no_batch_are_refused() {
    let system = System::start(&[]).await;
    let row = webhook("t").to_string();
    let many = vec![webhook("t"); 1001];
    for (content_type, body, status) in [
        ("application/json", String::new(), 422),
        ("application/json", "[]".into(), 422),
        ("application/json", json!(many).to_string(), 422),
        ("application/x-ndjson", lines(&many), 422),
        ("application/json", format!("[{row}"), 400),
        ("application/json", format!("[{row}] x"), 400),
        ("text/csv", format!("[{row}]"), 415),
        ("application/json", format!("[{row}{}]", " ".repeat(4 * MIB)), 413),
    ] {
        let response = system.send_batch(content_type, body.clone()).await;
        response.assert_problem(status, &body.chars().take(60).collect::<String>());
    }
    assert_eq!(system.count("SELECT count(*) FROM transactions").await, 0);
    // Larger than the body of any other route.
    let response = system.send_batch("application/json", format!("[{row}{}]", " ".repeat(3 * MIB))).await;
    assert_eq!(verdicts(&response), ["t 202 new"]);
    let response = send(system.post_webhook(format!("{row}{}", " ".repeat(MIB)))).await;
    response.assert_problem(413, "the other route keeps its limit");
}

#[tokio::test]
async fn the_signature_covers_the_whole_body() {
    let system = System::start(&[("WEBHOOK_SECRET", &format!("acme:{}", secret(KEY)))]).await;
    let body = json!([webhook("a"), webhook("b")]).to_string();
    let now = OffsetDateTime::now_utc().unix_timestamp().to_string();
    let post = async |body: &str, signature: &str| {
        let request = system.request(reqwest::Method::POST, &format!("{WEBHOOKS}/batch"));
        let request = request.header("content-type", "application/json").body(body.to_owned());
        let signed = headers("m", &now, signature);
        send(signed.iter().fold(request, |request, (name, value)| request.header(*name, value))).await
    };
    let good = sign(KEY, "m", &now, &body);
    post(&body.replace("\"b\"", "\"c\""), &good).await.assert_problem(401, "another body");
    system.send_batch("application/json", body.clone()).await.assert_problem(401, "no signature");
    assert_eq!(system.count("SELECT count(*) FROM transactions").await, 0);
    assert_eq!(verdicts(&post(&body, &good).await), ["a 202 new", "b 202 new"]);
    assert_eq!(system.count("SELECT count(*) FROM transactions WHERE sender = 'acme'").await, 2);
}

#[tokio::test]
async fn forty_batches_at_once_take_little_memory() {
    let system = System::start(&[]).await;
    let pid = system.api.process.pid();
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") / 1024
    };
    let body = |batch: usize| {
        let rows: Vec<Value> = (0..1000).map(|n| webhook(&format!("t-{batch}-{n}"))).collect();
        json!(rows).to_string()
    };
    assert_eq!(verdicts(&system.send_batch("application/json", body(40)).await).len(), 1000);
    let before = memory();
    let responses = join_all((0..40).map(|batch| system.send_batch("application/json", body(batch)))).await;
    let after = memory();
    let mut recorded = 1000;
    for response in responses {
        // A process that has too much to do refuses a batch as a whole.
        if response.status == 503 {
            assert!(response.header("retry-after").parse::<u32>().is_ok(), "{response:?}");
        } else {
            recorded += verdicts(&response).iter().filter(|verdict| verdict.ends_with("202 new")).count();
        }
    }
    assert!(recorded > 10_000, "{recorded}");
    let rows = system.count("SELECT count(*) FROM transactions").await;
    assert!(rows >= i64::try_from(recorded).unwrap(), "{rows} rows, {recorded} acknowledged");
    assert!(after < before + 150, "from {before} to {after} MiB");
}
