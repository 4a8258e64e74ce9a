//! Webhooks: stored once and accepted after the commit, idempotent when repeated, refused with every validation error.

use serde_json::{Value, json};

use super::{System, assert_ok, webhook, webhook_with};
use crate::harness::{http::send, process::Api};

#[tokio::test]
async fn the_example_webhook_gets_the_documented_response() {
    let system = System::start(&[]).await;
    let body = r#"{
    "transaction_id": "txn_test_001",
    "source_account": "acc_user_1",
    "destination_account": "acc_merchant_1",
    "amount": 1500,
    "currency": "INR"
  }"#;
    let response = send(system.post_webhook(body)).await;
    assert_ok(&response, 202, "new");
    assert_eq!(response.header("location"), "/v1/transactions/txn_test_001");
    assert_eq!(response.header("content-type"), "application/json");
    for absent in ["idempotency-replayed", "idempotency-conflict"] {
        assert!(!response.headers.contains_key(absent), "{absent}: {response:?}");
    }
    let created = response.json()["created_at"].as_str().unwrap_or_default().to_owned();
    let expected = format!(
        r#"{{"transaction_id":"txn_test_001","source_account":"acc_user_1","destination_account":"acc_merchant_1","amount":1500,"currency":"INR","status":"PROCESSING","created_at":"{created}","processed_at":null}}"#
    ) + "\n";
    assert_eq!(response.text, expected);
    assert_eq!(send(system.get("/v1/transactions/txn_test_001")).await.text, expected, "GET returns the same");

    let again = send(system.post_webhook(body)).await;
    assert_ok(&again, 202, "again");
    assert_eq!((again.header("idempotency-replayed"), &*again.text), ("true", &*expected));
    assert_eq!(again.header("location"), "/v1/transactions/txn_test_001");
}

#[tokio::test]
async fn equal_values_are_a_replay_and_different_ones_a_conflict() {
    let system = System::start(&[]).await;
    let first = send(system.post_webhook(webhook("t").to_string())).await;
    for (case, body) in [
        ("identical", webhook("t").to_string()),
        (
            "key order",
            r#"{"currency":"INR","amount":1500,"destination_account":"acc_merchant_1","source_account":"acc_user_1","transaction_id":"t"}"#.into(),
        ),
        ("1500.00", webhook_with("t", "amount", "1500.00")),
        ("\"1500.0\"", webhook_with("t", "amount", "\"1500.0\"")),
        ("15e2", webhook_with("t", "amount", "15e2")),
        ("unknown field", webhook_with("t", "note", "{\"a\":[1,null]}")),
        ("blanks", format!(" \r\n\t{} \n", webhook("t"))),
        ("escapes", webhook("t").to_string().replace("INR", "\\u0049NR")),
    ] {
        let response = send(system.post_webhook(body)).await;
        assert_ok(&response, 202, case);
        assert_eq!(response.header("idempotency-replayed"), "true", "{case}: {response:?}");
        assert!(!response.headers.contains_key("idempotency-conflict"), "{case}: {response:?}");
        assert_eq!(response.text, first.text, "{case}");
    }

    let several = webhook("t").to_string().replace("1500", "1501").replace("INR", "EUR").replace("acc_user_1", "x");
    for (case, body, fields) in [
        ("amount", webhook_with("t", "amount", "1500.01"), "amount"),
        ("currency", webhook_with("t", "currency", "\"EUR\""), "currency"),
        ("source", webhook_with("t", "source_account", "\"ACC_USER_1\""), "source_account"),
        ("destination", webhook_with("t", "destination_account", "\"é\""), "destination_account"),
        ("several", several.clone(), "source_account, amount, currency"),
        ("several again", several, "source_account, amount, currency"),
    ] {
        let response = send(system.post_webhook(body)).await;
        assert_ok(&response, 202, case);
        assert_eq!(response.header("idempotency-conflict"), fields, "{case}: {response:?}");
        assert!(!response.headers.contains_key("idempotency-replayed"), "{case}: {response:?}");
        assert_eq!(response.text, first.text, "{case}: the first payload stands");
    }
    assert_eq!(send(system.get("/v1/transactions/t")).await.text, first.text);
    assert_eq!(send(system.post_webhook(webhook("t").to_string())).await.header("idempotency-replayed"), "true");
    assert_eq!(system.count("SELECT count(*) FROM transactions").await, 1);
    assert_eq!(system.count("SELECT count(*) FROM apalis.jobs").await, 1);
    assert_eq!(system.count("SELECT count(*) FROM webhook_conflicts").await, 5, "one row per payload");
    assert_eq!(system.count("SELECT sum(times)::int8 FROM webhook_conflicts").await, 6);
    let metrics = send(system.get("/metrics")).await.text;
    assert!(metrics.contains("\nmillrace_webhook_conflicts_total 6\n"), "{metrics}");

    // A second process on the same database rejects conflicts.
    let api = Api::start(&system.database.url, &[("WEBHOOK_CONFLICT", "reject")]).await;
    let strict = System { api, ..system };
    let refused = send(strict.post_webhook(webhook_with("t", "amount", "7"))).await;
    let problem = refused.assert_problem(409, "reject");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("amount")), "{problem}");
    assert_eq!(refused.header("idempotency-conflict"), "amount");
    let replayed = send(strict.post_webhook(webhook("t").to_string())).await;
    assert_eq!((replayed.status, replayed.header("idempotency-replayed")), (202, "true"));
    assert_eq!(send(strict.get("/v1/transactions/t")).await.text, first.text);
    assert_eq!(
        strict.count("SELECT sum(times)::int8 FROM webhook_conflicts").await,
        7,
        "a rejected conflict is stored too"
    );
}

#[tokio::test]
async fn concurrent_webhooks_of_one_id_are_stored_once() {
    let system = System::start(&[]).await;
    let other = System {
        api: Api::start(&system.database.url, &[]).await,
        client: system.client.clone(),
        database: crate::harness::database::fresh().await,
    };
    // Four payloads for one id, 15 times each, over two processes.
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..60 {
        let to = if number % 2 == 0 { &system } else { &other };
        let request = to.post_webhook(webhook_with("t", "amount", &(1 + number % 4).to_string()));
        requests.spawn(send(request));
    }
    let responses = requests.join_all().await;
    assert!(responses.iter().all(|response| response.status == 202), "{responses:?}");
    let amount = responses[0].json()["amount"].clone();
    assert!(responses.iter().all(|response| response.json()["amount"] == amount), "{responses:?}");
    let count_with = |name: &str| responses.iter().filter(|response| response.headers.contains_key(name)).count();
    assert_eq!((count_with("idempotency-replayed"), count_with("idempotency-conflict")), (14, 45));
    assert_eq!(system.count("SELECT count(*) FROM transactions").await, 1);
    assert_eq!(system.count("SELECT count(*) FROM apalis.jobs").await, 1);
}

#[tokio::test]
async fn invalid_fields_get_pydantic_messages() {
    let system = System::start(&[]).await;
    let case = |field: &'static str, raw: String, kind: &'static str, msg: &'static str| (field, raw, kind, msg);
    let mut cases = Vec::new();
    for field in ["transaction_id", "source_account", "destination_account"] {
        cases.push(case(field, "\"\"".into(), "string_too_short", "String should have at least 1 character"));
        let long = format!("\"{}\"", "é".repeat(256));
        cases.push(case(field, long, "string_too_long", "String should have at most 255 characters"));
        for raw in ["5", "null", "true", "[]", "{}"] {
            cases.push(case(field, raw.into(), "string_type", "Input should be a valid string"));
        }
        cases.push(case(field, "\"a\\u0000b\"".into(), "value_error", "Value error, text must not contain NUL"));
    }
    let places = "Decimal input should have no more than 6 decimal places";
    let digits = "Decimal input should have no more than 12 digits before the decimal point";
    let total = "Decimal input should have no more than 18 digits in total";
    let not_decimal = "Input should be a valid decimal";
    let wrong_type = "Decimal input should be an integer, float, string or Decimal object";
    for (raw, kind, msg) in [
        ("0", "greater_than", "Input should be greater than 0"),
        ("-0.0", "greater_than", "Input should be greater than 0"),
        ("-1500", "greater_than", "Input should be greater than 0"),
        ("\"-0.000001\"", "greater_than", "Input should be greater than 0"),
        ("0.0000001", "decimal_max_places", places),
        ("1e-7", "decimal_max_places", places),
        ("1E-999999999", "decimal_max_digits", total),
        ("-1.12345678", "decimal_max_places", places),
        ("1000000000000", "decimal_whole_digits", digits),
        ("1e12", "decimal_whole_digits", digits),
        ("\"1e999999999\"", "decimal_max_digits", total),
        ("1234567890123456789", "decimal_max_digits", total),
        ("-1234567890123456789", "decimal_max_digits", total),
        ("1234567890123.1234567", "decimal_max_digits", total),
        ("1234567890123.1", "decimal_whole_digits", digits),
        ("\"1,500\"", "decimal_parsing", not_decimal),
        ("\"\"", "decimal_parsing", not_decimal),
        ("\"0x10\"", "decimal_parsing", not_decimal),
        ("\"NaN\"", "finite_number", "Input should be a finite number"),
        ("\"-Infinity\"", "finite_number", "Input should be a finite number"),
        ("null", "decimal_type", wrong_type),
        ("[1]", "decimal_type", wrong_type),
        ("{\"amount\":1}", "decimal_type", wrong_type),
    ] {
        cases.push(("amount", raw.into(), kind, msg));
    }
    let not_a_code = "Value error, currency must be an ISO 4217 code, such as INR";
    for (raw, kind, msg) in [
        ("356", "string_type", "Input should be a valid string"),
        ("null", "string_type", "Input should be a valid string"),
        ("\"\"", "value_error", not_a_code),
        ("\"inr\"", "value_error", not_a_code),
        ("\"ABC\"", "value_error", not_a_code),
        ("\"INR \"", "value_error", not_a_code),
        ("\"DEM\"", "value_error", not_a_code),
    ] {
        cases.push(("currency", raw.into(), kind, msg));
    }
    for (field, raw, kind, msg) in cases {
        let case = format!("{field} = {raw}");
        let response = send(system.post_webhook(webhook_with("v", field, &raw))).await;
        response.assert_problem(422, &case);
        assert_eq!(
            response.validation_errors(),
            [(kind.into(), format!("[\"body\",\"{field}\"]"), msg.into())],
            "{case}"
        );
        let input = &response.json()["detail"][0]["input"];
        let number = raw.starts_with(|c: char| c == '-' || c.is_ascii_digit());
        if !number {
            assert_eq!(*input, serde_json::from_str::<Value>(&raw).unwrap(), "{case}");
        }
        assert!(
            response.text.contains(&format!("\"input\":{raw}")),
            "{case}: the input is repeated unchanged: {}",
            response.text
        );
    }
    assert_eq!(system.count("SELECT count(*) FROM transactions").await, 0, "refused webhooks are not stored");
}

#[tokio::test]
async fn every_failing_field_is_listed() {
    let system = System::start(&[]).await;
    let failures = |response: crate::harness::http::HttpResponse| {
        response.assert_problem(422, "all");
        response.validation_errors().into_iter().map(|(kind, loc, _)| format!("{kind} {loc}")).collect::<Vec<_>>()
    };
    let empty = send(system.post_webhook("{}")).await;
    assert_eq!(empty.json()["detail"][0]["input"], json!({}), "the input of a missing field is the whole body");
    assert_eq!(empty.json()["detail"][0]["msg"], "Field required");
    let fields = ["transaction_id", "source_account", "destination_account", "amount", "currency"];
    assert_eq!(failures(empty), fields.map(|field| format!("missing [\"body\",\"{field}\"]")));
    let wrong = r#"{"transaction_id":"","source_account":null,"amount":0,"currency":"XX","amount_":1}"#;
    assert_eq!(
        failures(send(system.post_webhook(wrong)).await),
        [
            r#"string_too_short ["body","transaction_id"]"#,
            r#"string_type ["body","source_account"]"#,
            r#"missing ["body","destination_account"]"#,
            r#"greater_than ["body","amount"]"#,
            r#"value_error ["body","currency"]"#,
        ]
    );
    let twice = r#"{"transaction_id":"v","transaction_id":"v","amount":1,"\u0061mount":1,"x":1,"x":1}"#;
    let twice = failures(send(system.post_webhook(twice)).await);
    for field in ["transaction_id", "amount", "x"] {
        assert!(twice.contains(&format!("value_error [\"body\",\"{field}\"]")), "{field} twice: {twice:?}");
    }
    assert_eq!(system.count("SELECT count(*) FROM transactions").await, 0, "refused webhooks are not stored");
}

#[tokio::test]
async fn bodies_that_are_not_a_json_object_are_refused() {
    let system = System::start(&[]).await;
    let valid = |id: &str| webhook(id).to_string().into_bytes();
    let object = "Input should be a valid dictionary or object to extract fields from";
    for (case, body, status, msg) in [
        ("empty", vec![], 422, Some("Field required")),
        ("a byte order mark", b"\xEF\xBB\xBF".to_vec(), 422, Some("Field required")),
        ("two byte order marks", [b"\xEF\xBB\xBF\xEF\xBB\xBF", &*valid("n")].concat(), 400, None),
        ("array", b"[]".to_vec(), 422, Some(object)),
        ("a webhook in an array", [b"[", &*valid("n"), b"]"].concat(), 422, Some(object)),
        ("number", b"5".to_vec(), 422, Some(object)),
        ("string", b"\"x\"".to_vec(), 422, Some(object)),
        ("null", b"null".to_vec(), 422, Some(object)),
        ("words", b"nonsense".to_vec(), 400, None),
        ("a form", b"transaction_id=n&amount=1".to_vec(), 400, None),
        ("cut short", valid("n")[..40].to_vec(), 400, None),
        ("two objects", valid("n").repeat(2), 400, None),
        ("trailing comma", webhook("n").to_string().replace('}', ",}").into_bytes(), 400, None),
        ("single quotes", webhook("n").to_string().replace('"', "'").into_bytes(), 400, None),
        ("NaN", webhook_with("n", "amount", "NaN").into_bytes(), 400, None),
        ("leading zero", webhook_with("n", "amount", "01").into_bytes(), 400, None),
        ("hexadecimal", webhook_with("n", "amount", "0x10").into_bytes(), 400, None),
        ("NUL byte in a text", webhook_with("n", "currency", "\"I\0NR\"").into_bytes(), 400, None),
        ("NUL bytes", vec![0; 100], 400, None),
        ("not UTF-8", valid("n").iter().map(|b| if *b == b'I' { 0xff } else { *b }).collect(), 400, None),
        ("UTF-16", webhook("n").to_string().encode_utf16().flat_map(u16::to_le_bytes).collect(), 400, None),
        ("deep", [vec![b'['; 200_000], vec![b']'; 200_000]].concat(), 422, Some(object)),
        ("deep and unfinished", b"[".repeat(200_000), 400, None),
    ] {
        let response = send(system.post_webhook(body)).await;
        let problem = response.assert_problem(status, case);
        match msg {
            Some(msg) => {
                assert_eq!(
                    (&problem["detail"][0]["msg"], &problem["detail"][0]["loc"]),
                    (&json!(msg), &json!(["body"])),
                    "{case}"
                );
            }
            None => assert!(problem["detail"].is_string(), "{case}: {problem}"),
        }
    }
    let half = send(system.post_webhook(webhook_with("n", "transaction_id", r#""\ud800""#))).await;
    half.assert_problem(422, "half a surrogate pair");
    assert_eq!(half.validation_errors()[0].0, "string_unicode");
    // Valid JSON that many clients cannot parse. Repeated in the response, it would make that unreadable too.
    send(system.post_webhook(webhook_with("n", "amount", "1e400"))).await.assert_problem(422, "beyond a float");
    let nested = format!("{{\"x\":{}{}}}", "[".repeat(500), "]".repeat(500));
    send(system.post_webhook(nested)).await.assert_problem(422, "fields missing from a deeply nested body");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_ok(
        &send(system.post_webhook(webhook_with("deep", "unknown", &deep))).await,
        202,
        "a deeply nested unknown field",
    );
    assert_eq!(system.count("SELECT count(*) FROM transactions").await, 1);
    let marked = [b"\xEF\xBB\xBF", &*valid("marked")].concat();
    assert_ok(&send(system.post_webhook(marked)).await, 202, "a byte order mark, which some editors add");
}

#[tokio::test]
async fn the_content_type_decides_whether_a_body_is_read() {
    let system = System::start(&[]).await;
    for (declared, encoding, status) in [
        (None, None, 202),
        (Some("application/json"), None, 202),
        (Some("application/json; charset=utf-8"), None, 202),
        (Some("APPLICATION/JSON;charset=\"UTF-8\""), None, 202),
        (Some("application/vnd.bank+json"), None, 202),
        (Some("application/json"), Some("identity"), 202),
        (Some("text/plain"), None, 415),
        (Some("text/json"), None, 415),
        (Some("application/x-www-form-urlencoded"), None, 415),
        (Some("multipart/form-data; boundary=x"), None, 415),
        (Some("application/jsonp"), None, 415),
        (Some("application/xml"), None, 415),
        (Some("json"), None, 415),
        (Some("application/json"), Some("gzip"), 415),
    ] {
        let mut request = system.client.post(format!("{}{}", system.api.url, super::WEBHOOKS));
        request = declared.into_iter().fold(request, |request, declared| request.header("content-type", declared));
        request = encoding.into_iter().fold(request, |request, encoding| request.header("content-encoding", encoding));
        let response = send(request.body(webhook("t").to_string())).await;
        assert_ok(&response, status, &format!("{declared:?} {encoding:?}"));
        if status == 415 {
            response.assert_problem(415, &format!("{declared:?}"));
        }
    }
}

#[tokio::test]
async fn amounts_keep_their_exact_value() {
    let system = System::start(&[]).await;
    for (number, (given, shown)) in [
        ("1500", "1500"),
        ("1500.00", "1500.00"),
        ("0.1", "0.1"),
        ("0.000001", "0.000001"),
        ("999999999999.999999", "999999999999.999999"),
        ("999999999999", "999999999999"),
        ("100000000000.000001", "100000000000.000001"),
        ("9007199254.740993", "9007199254.740993"),
        ("1e-6", "0.000001"),
        ("1.5E+3", "1500"),
        ("1e11", "100000000000"),
        ("\"12.50\"", "12.50"),
        ("\" 12.50 \"", "12.50"),
        ("\"0.30\"", "0.30"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("amount-{number}");
        let response = send(system.post_webhook(webhook_with(&id, "amount", given))).await;
        assert_ok(&response, 202, given);
        let expected = format!("\"amount\":{shown},");
        assert!(response.text.contains(&expected), "{given}: {}", response.text);
        let found = send(system.get(&format!("/v1/transactions/{id}"))).await;
        assert!(found.text.contains(&expected), "{given}: {}", found.text);
    }
    let page = send(system.get("/v1/transactions")).await.text;
    assert!(page.contains("\"amount\":999999999999.999999,"), "{page}");
}

/// The ISO 4217 codes of currencies in use.
const CURRENCIES: &str = "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD \
    CAD CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD \
    HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD \
    MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG \
    QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD \
    TZS UAH UGX USD UYU UZS VES VND VUV WST XAF XCD XOF XPF YER ZAR ZMW XCG ZWG";

#[tokio::test]
async fn every_current_currency_is_accepted() {
    let system = System::start(&[]).await;
    let mut unknown = Vec::new();
    for code in CURRENCIES.split_whitespace() {
        let response = send(system.post_webhook(webhook_with(code, "currency", &format!("\"{code}\"")))).await;
        if response.status != 202 || response.json()["currency"] != code {
            unknown.push(code);
        }
    }
    assert_eq!(unknown, [""; 0]);
}
