//! What production wants to have set before it starts, and what guessing a key costs.

use serde_json::json;

use super::{SOON, refusals};
use crate::harness::{
    cluster, database, eventually,
    http::ask,
    process::{Api, client, worker},
};

const NOWHERE: (&str, &str) = ("DATABASE_URL", "postgres://nowhere.invalid/x");
const PROD: (&str, &str) = ("ENV", "prod");
/// Everything that prod wants to have set.
const CHOSEN: [(&str, &str); 6] = [
    PROD,
    ("API_KEY", "a key of the tests, number 1"),
    ("ADMIN_API_KEY", "a key of the tests, number 2"),
    ("JWT_SECRET", "a secret of 32 bytes or more, number 3"),
    ("WEBHOOK_SECRET", "none"),
    ("PROCESSOR_URL", "simulated"),
];

async fn names(arguments: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
    let mut names: Vec<_> = refusals(arguments, variables).await.into_iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn prod_wants_its_secrets_and_choices_and_names_each() {
    let all = ["ADMIN_API_KEY", "API_KEY", "JWT_SECRET", "PROCESSOR_URL", "WEBHOOK_SECRET"];
    for (arguments, wanted) in [(&["api"][..], &all[..]), (&[], &all), (&["worker"], &["PROCESSOR_URL"])] {
        assert_eq!(names(arguments, &[NOWHERE, PROD]).await, wanted, "{arguments:?}");
    }
    let but = |changed: &[(&'static str, &'static str)]| {
        let kept = CHOSEN.into_iter().filter(|(name, _)| changed.iter().all(|(other, _)| other != name));
        kept.chain(changed.iter().copied()).chain([NOWHERE]).collect::<Vec<_>>()
    };
    for (changed, wanted) in [
        (&[("API_KEY", "a"), ("ADMIN_API_KEY", "a")][..], &["ADMIN_API_KEY", "API_KEY"][..]),
        (&[("API_KEY", "your-secret-api-key-here")], &["API_KEY"]),
        (&[("ADMIN_API_KEY", "a key of the tests, number 1")], &["ADMIN_API_KEY"]),
        (&[("WEBHOOK_SECRET", "")], &["WEBHOOK_SECRET"]),
        (&[("WEBHOOK_SECRET", "None")], &["WEBHOOK_SECRET"]),
        (&[("PROCESSOR_URL", " ")], &["PROCESSOR_URL"]),
        (&[("PROCESSOR_URL", "simulation")], &["PROCESSOR_URL"]),
    ] {
        assert_eq!(names(&["api"], &but(changed)).await, wanted, "{changed:?}");
    }
    for (name, problem) in refusals(&["api"], &but(&[("API_KEY", "hunter2"), ("JWT_SECRET", "hunter2")])).await {
        assert!(problem.contains("such as") && !problem.contains("hunter2"), "{name}: {problem}");
    }
}

#[tokio::test]
async fn prod_starts_with_what_was_chosen_and_migrates_without() {
    let database = database::fresh().await;
    let quick = [&CHOSEN[..], &[("PROCESSING_DELAY_SECONDS", "0")]].concat();
    let (api, _worker) = (Api::start(&database.url, &quick).await, worker(&database.url, &[PROD, CHOSEN[5]]).await);
    let webhook = json!({
        "transaction_id": "chosen", "source_account": "a", "destination_account": "b", "amount": 1, "currency": "INR",
    });
    let client = client();
    let sent = ask(client.post(format!("{}/v1/webhooks/transactions", api.url)).json(&webhook)).await;
    assert_eq!(sent.status, 202, "unsigned, as was chosen: {sent:?}");
    // The migration and the operator's commands serve no one, and want no keys.
    for command in ["migrate", "queues"] {
        let (succeeded, log) = super::run(&[command], &[PROD, ("DATABASE_URL", &database.url)]).await;
        assert!(succeeded, "{command}: {log}");
    }
}

#[tokio::test]
async fn wrong_keys_of_an_address_are_limited_and_right_ones_are_served() {
    let database = database::fresh().await;
    let api = Api::start(&database.url, &[]).await;
    let client = client();
    let status = async |path: &str, header: &str, key: &str| {
        ask(client.get(format!("{}{path}", api.url)).header(header, key)).await
    };
    let mut refused = 0;
    let limited = loop {
        let (path, header) =
            if refused % 2 == 0 { ("/interest_rate", "api_key") } else { ("/logs/export", "x-api-key") };
        let answer = status(path, header, &format!("guess {refused}")).await;
        if answer.status == 429 {
            break answer;
        }
        assert_eq!(answer.status, 403, "{answer:?}");
        refused += 1;
        assert!(refused < 300, "no end of guessing");
    };
    assert!(refused >= 30, "after {refused}");
    assert!(limited.header("retry-after").parse::<u32>().is_ok(), "{limited:?}");
    for (path, header, key, served) in [
        ("/interest_rate", "api_key", "your-secret-api-key-here", 404),
        ("/interest_rate", "api_key", "", 403),
        ("/interest_rate", "x-api-key", "your-secret-api-key-here", 403),
    ] {
        assert_eq!(status(path, header, key).await.status, served, "{path} {header} {key}");
    }
}

#[tokio::test]
async fn a_cause_that_fails_every_request_is_not_logged_for_every_request() {
    let database = database::fresh().await;
    let api = Api::start(&database.url, &[]).await;
    let (name, client) = (&database.name, client());
    let postgres = sqlx::PgPool::connect(&cluster::server().await.url("postgres")).await.unwrap();
    for statement in [
        format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"),
        format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&postgres).await.unwrap();
    }
    for number in 0..60 {
        let asked = ask(client.get(format!("{}/v1/transactions/t-{number}", api.url))).await;
        assert_eq!(asked.status, 503, "{asked:?}");
    }
    // Lines are written by a thread of their own.
    let lines_of = |event: &str| api.process.log().lines().filter(|line| line.contains(event)).count();
    eventually("each request has its line", SOON, async || lines_of("COMPLETED_REQUEST") >= 60).await;
    let causes = lines_of("request failed: service unavailable");
    assert!((1..=10).contains(&causes), "{causes} lines: {}", api.process.log());
}
