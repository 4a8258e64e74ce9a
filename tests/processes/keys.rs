//! Required settings in production, and the limit for guessed keys.

use serde_json::json;

use super::{SOON, startup_problems};
use crate::harness::{
    cluster, database, eventually,
    http::send,
    process::{Api, http_client, start_worker},
};

const NOWHERE: (&str, &str) = ("DATABASE_URL", "postgres://nowhere.invalid/x");
const PROD: (&str, &str) = ("ENV", "prod");
/// Every setting that `ENV=prod` requires.
const REQUIRED: [(&str, &str); 6] = [
    PROD,
    ("API_KEY", "a key of the tests, number 1"),
    ("ADMIN_API_KEY", "a key of the tests, number 2"),
    ("JWT_SECRET", "a secret of 32 bytes or more, number 3"),
    ("WEBHOOK_SECRET", "none"),
    ("PROCESSOR_URL", "simulated"),
];

/// The variables that a command reports as wrong, sorted.
async fn reported_variables(arguments: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
    let mut names: Vec<_> = startup_problems(arguments, variables).await.into_iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn prod_requires_its_secrets_and_choices_and_reports_each_missing_one() {
    let all = ["ADMIN_API_KEY", "API_KEY", "JWT_SECRET", "PROCESSOR_URL", "WEBHOOK_SECRET"];
    for (arguments, wanted) in [(&["api"][..], &all[..]), (&[], &all), (&["worker"], &["PROCESSOR_URL"])] {
        assert_eq!(reported_variables(arguments, &[NOWHERE, PROD]).await, wanted, "{arguments:?}");
    }
    // The required settings with some of them replaced.
    let replaced = |changed: &[(&'static str, &'static str)]| {
        let others = REQUIRED.into_iter().filter(|(name, _)| changed.iter().all(|(other, _)| other != name));
        others.chain(changed.iter().copied()).chain([NOWHERE]).collect::<Vec<_>>()
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
        assert_eq!(reported_variables(&["api"], &replaced(changed)).await, wanted, "{changed:?}");
    }
    for (name, problem) in
        startup_problems(&["api"], &replaced(&[("API_KEY", "hunter2"), ("JWT_SECRET", "hunter2")])).await
    {
        assert!(problem.contains("such as") && !problem.contains("hunter2"), "{name}: {problem}");
    }
}

#[tokio::test]
async fn prod_starts_with_all_settings_and_migrates_without_them() {
    let database = database::fresh().await;
    let variables = [&REQUIRED[..], &[("PROCESSING_DELAY_SECONDS", "0")]].concat();
    let (api, _worker) =
        (Api::start(&database.url, &variables).await, start_worker(&database.url, &[PROD, REQUIRED[5]]).await);
    let webhook = json!({
        "transaction_id": "chosen", "source_account": "a", "destination_account": "b", "amount": 1, "currency": "INR",
    });
    let client = http_client();
    let sent = send(client.post(format!("{}/v1/webhooks/transactions", api.url)).json(&webhook)).await;
    assert_eq!(sent.status, 202, "unsigned webhooks are configured: {sent:?}");
    // The migration and the operator's commands serve no requests, and need no keys.
    for command in ["migrate", "queues"] {
        let (succeeded, log) = super::run(&[command], &[PROD, ("DATABASE_URL", &database.url)]).await;
        assert!(succeeded, "{command}: {log}");
    }
}

#[tokio::test]
async fn wrong_keys_are_limited_per_address_and_correct_keys_are_served() {
    let database = database::fresh().await;
    let api = Api::start(&database.url, &[]).await;
    let client = http_client();
    let get = async |path: &str, header: &str, key: &str| {
        send(client.get(format!("{}{path}", api.url)).header(header, key)).await
    };
    // One limit for all routes, also for those that need no key.
    const ROUTES: [(&str, &str); 4] = [
        ("/interest_rate", "api_key"),
        ("/logs/export", "x-api-key"),
        ("/v1/transactions", "x-api-key"),
        ("/v1/transactions/txn-1", "x-api-key"),
    ];
    let mut refused = 0;
    let limited = loop {
        let (path, header) = ROUTES[refused % ROUTES.len()];
        let response = get(path, header, &format!("guess {refused}")).await;
        if response.status == 429 {
            break response;
        }
        assert_eq!(response.status, 403, "{response:?}");
        refused += 1;
        assert!(refused < 300, "guessing is not limited");
    };
    assert!((30..60).contains(&refused), "limited after {refused} guesses");
    for (path, header) in ROUTES {
        // A guess is allowed again every 2 s. A limit of this route alone would allow 30 of them.
        let mut allowed = 0;
        while get(path, header, "another guess").await.status != 429 {
            allowed += 1;
            assert!(allowed < 15, "{path} has a limit of its own");
        }
    }
    assert!(limited.header("retry-after").parse::<u32>().is_ok(), "{limited:?}");
    for (path, header, key, served) in [
        ("/interest_rate", "api_key", "your-secret-api-key-here", 404),
        ("/interest_rate", "api_key", "", 403),
        ("/interest_rate", "x-api-key", "your-secret-api-key-here", 403),
    ] {
        assert_eq!(get(path, header, key).await.status, served, "{path} {header} {key}");
    }
}

#[tokio::test]
async fn a_cause_that_fails_every_request_is_logged_only_sometimes() {
    let database = database::fresh().await;
    let api = Api::start(&database.url, &[]).await;
    let (name, client) = (&database.name, http_client());
    let postgres = sqlx::PgPool::connect(&cluster::server().await.url("postgres")).await.unwrap();
    for statement in [
        format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"),
        format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&postgres).await.unwrap();
    }
    for number in 0..60 {
        let response = send(client.get(format!("{}/v1/transactions/t-{number}", api.url))).await;
        assert_eq!(response.status, 503, "{response:?}");
    }
    // A separate thread writes the log.
    let lines_of = |event: &str| api.process.log().lines().filter(|line| line.contains(event)).count();
    eventually("each request has its line", SOON, async || lines_of("COMPLETED_REQUEST") >= 60).await;
    let causes = lines_of("request failed: service unavailable");
    assert!((1..=10).contains(&causes), "{causes} lines: {}", api.process.log());
}
