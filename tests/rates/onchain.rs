//! With a contract behind it, on a real node: the same answers, and each submission on the chain once, whoever dies.

use std::time::Duration;

use futures_util::future::join_all;
use jobs::{
    config::EnvReader,
    interest_rates::chain::{self, Account},
};
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::json;
use sqlx::PgPool;

use super::{KEY, SAVED, System, api, one};
use crate::harness::{
    anvil::{Node, OTHER, OWNER, OWNER_KEY},
    database, eventually,
    http::{HttpResponse, send},
    process::{self, Api, Process},
};

const SOON: Duration = Duration::from_secs(60);

/// An API over a database, a node and a contract of its own.
pub(super) struct Chained {
    pub(super) node: Node,
    /// Where the processes find the node.
    url: String,
    pub(super) contract: String,
    pub(super) system: System,
    pub(super) pool: PgPool,
}

impl Chained {
    async fn start() -> Option<Self> {
        let node = Node::start().await?;
        let url = node.url.clone();
        Some(Self::over(node, url).await)
    }

    /// Over this node, which the processes find at `url`.
    pub(super) async fn over(node: Node, url: String) -> Self {
        drop(process::http_client());
        let mut vars = EnvReader::from_pairs(&[("CHAIN_RPC_URL", &node.url), ("CHAIN_PRIVATE_KEY", OWNER_KEY)]);
        let account = Account::read(&mut vars);
        let account = vars.finish(account).unwrap().unwrap();
        let contract = chain::deploy(&account).await.expect("a contract");
        let database = database::fresh().await;
        let pool = database.pool().await;
        let api = api(&database, &variables(&url, &contract)).await;
        let system = System { api, client: process::http_client(), database };
        Self { node, url, contract, system, pool }
    }

    /// One more API process.
    pub(super) async fn api(&self) -> Api {
        api(&self.system.database, &variables(&self.url, &self.contract)).await
    }

    /// A worker, which looks after all submissions now and not when their jobs are due.
    pub(super) async fn reconcile(&self) -> Process {
        let now = "UPDATE apalis.jobs SET run_at = now() WHERE job_type = 'reconcile_rate' AND status = 'Pending'";
        sqlx::query(now).execute(&self.pool).await.expect("jobs");
        process::start_worker(&self.system.database.url, &variables(&self.url, &self.contract)).await
    }

    pub(super) async fn count(&self, question: &'static str) -> i64 {
        sqlx::query_scalar(question).fetch_one(&self.pool).await.expect("a number")
    }

    pub(super) async fn pending(&self) -> i64 {
        self.count("SELECT count(*) FROM interest_rates WHERE state = 'pending'").await
    }

    /// A submission whose transaction waits for its block; its request goes on.
    pub(super) async fn submit_and_wait(
        &self,
        rate: i32,
        key: &'static str,
    ) -> tokio::task::JoinHandle<Option<HttpResponse>> {
        self.node.set_automine(false).await;
        let request = self.system.call(Method::POST, "/asset").header("idempotency-key", key).json(&one(rate));
        let request = tokio::spawn(async move {
            let response = request.send().await.ok()?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            Some(HttpResponse { status, headers, text: response.text().await.ok()? })
        });
        eventually("the transaction waits in the node", SOON, async || {
            let status = self.node.call("txpool_status", json!([])).await;
            status["pending"] != "0x0"
        })
        .await;
        request
    }

    /// The hash of what was signed last.
    pub(super) async fn hash(&self) -> String {
        let hash: Vec<u8> =
            sqlx::query_scalar("SELECT hash FROM chain_sends ORDER BY sent_at DESC, number DESC LIMIT 1")
                .fetch_one(&self.pool)
                .await
                .expect("a hash");
        hash.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
    }

    pub(super) fn assert_no_secret(&self, more: &[&Process]) {
        let digits = OWNER_KEY.trim_start_matches("0x");
        for process in more.iter().copied().chain([&self.system.api.process]) {
            let log = process.log();
            assert!(!log.to_lowercase().contains(digits) && !log.contains(KEY), "{log}");
        }
    }
}

fn variables<'a>(url: &'a str, contract: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("STORAGE_BACKEND", "smart_contract"),
        ("CHAIN_RPC_URL", url),
        ("CHAIN_PRIVATE_KEY", OWNER_KEY),
        ("CONTRACT_ADDRESS", contract),
    ]
}

#[tokio::test]
async fn the_seeds_session_on_a_chain() {
    let Some(chained) = Chained::start().await else { return };
    let system = &chained.system;
    assert_eq!(system.get("/").await.json()["storage_backend"], "smart_contract");
    assert_eq!(system.get("/readyz").await.status, 200);
    let problem = system.get("/interest_rate").await.assert_problem(404, "nothing yet");
    assert_eq!(problem["detail"], "No interest rate found. Please update assets first.");
    let assets = json!([{"id": "id-1", "interest_rate": 100}, {"id": "id-2", "interest_rate": 10}]);
    let saved = system.submit_as("k", assets.clone()).await;
    assert_eq!((saved.status, saved.json()), (200, json!({"message": SAVED})), "{saved:?}");
    assert_eq!(system.current().await, "55.0");
    let again = system.submit_as("k", assets).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (200, "true"), "{again:?}");
    system.submit_as("k", one(1)).await.assert_problem(422, "another body");
    for (rate, shown) in [
        ("0.0000000000000000005", "0.0"),
        ("1.6666666666666666665", "1.666666666666666666"),
        ("99999999999999999999.9999999999999999999", "100000000000000000000.0"),
    ] {
        assert_eq!(system.submit(one(rate)).await.status, 200);
        assert_eq!(system.current().await, shown, "{rate}");
    }
    let all = ["100000000000000000000.0", "1.666666666666666666", "0.0", "55.0"];
    for limit in [1, 3, 100] {
        assert_eq!(system.history(limit).await, all, "{limit} a page");
    }
    let time = system.get("/interest_rate").await.json()["updated_at"].as_str().expect("a time").to_owned();
    assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
    assert_eq!(chained.pending().await, 0);
    chained.assert_no_secret(&[]);
}

#[tokio::test]
async fn two_processes_that_write_at_once_lose_and_double_nothing() {
    let Some(chained) = Chained::start().await else { return };
    let second = chained.api().await;
    let submit = async |rate: usize| {
        let url = if rate.is_multiple_of(2) { &chained.system.api.url } else { &second.url };
        let request = chained.system.client.post(format!("{url}/asset")).header("api_key", KEY);
        send(request.json(&one(rate))).await
    };
    let answers = join_all((1..=40).map(submit)).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    let mut saved = chained.system.history(100).await;
    saved.sort_by_key(|rate| rate.trim_end_matches(".0").parse::<usize>().expect("a number"));
    assert_eq!(saved, (1..=40).map(|rate| format!("{rate}.0")).collect::<Vec<_>>());
    let used = chained.node.call("eth_getTransactionCount", json!([OWNER, "latest"])).await;
    assert_eq!(used, "0x29", "one transaction each, and the contract's own: none was lost or replaced");
    // Nobody signed with a nonce that somebody else had: the sender is one process's at a time.
    assert_eq!(chained.count("SELECT count(*) FROM chain_sends").await, 40);
    chained.assert_no_secret(&[&second.process]);
}

#[tokio::test]
async fn a_chain_that_is_down_is_503_and_nothing_half_saved() {
    let Some(mut chained) = Chained::start().await else { return };
    chained.node.stop().await;
    // It starts all the same.
    chained.system.api = chained.api().await;
    let system = &chained.system;
    for path in ["/readyz", "/interest_rate", "/interest_rate/history"] {
        let refused = system.get(path).await;
        refused.assert_problem(503, path);
        assert!(!refused.header("retry-after").is_empty(), "{refused:?}");
        assert!(!refused.text.contains("127.0.0.1"), "no internals: {refused:?}");
    }
    assert_eq!(system.get("/livez").await.status, 200);
    let refused = system.submit_as("k", one(5)).await;
    refused.assert_problem(503, "down");
    assert_eq!(chained.pending().await, 0);
    chained.node.start_again().await;
    let worker = chained.reconcile().await;
    eventually("ready again", SOON, async || system.get("/readyz").await.status == 200).await;
    eventually("the job is done", SOON, async || {
        chained.count("SELECT count(*) FROM apalis.jobs WHERE status <> 'Done'").await == 0
    })
    .await;
    system.get("/interest_rate").await.assert_problem(404, "the sender was told that nothing is saved");
    let saved = system.submit_as("k", one(6)).await;
    assert_eq!((saved.status, saved.header("idempotency-replayed")), (200, ""), "its key is free: {saved:?}");
    assert_eq!(system.history(10).await, ["6.0"]);
    chained.assert_no_secret(&[&worker]);
}

#[tokio::test]
async fn a_process_that_dies_before_the_receipt_leaves_one_update() {
    let Some(mut chained) = Chained::start().await else { return };
    let request = chained.submit_and_wait(5, "k").await;
    chained.system.api.process.signal(Signal::SIGKILL);
    assert!(request.await.expect("a task").is_none(), "nobody was told anything");
    chained.system.api = chained.api().await;
    let worker = chained.reconcile().await;
    // While the job waits for the block, its sender asks again; both drive the same submission.
    let again =
        tokio::spawn(send(chained.system.call(Method::POST, "/asset").header("idempotency-key", "k").json(&one(5))));
    chained.node.mine().await;
    let again = again.await.expect("an answer");
    assert_eq!((again.status, again.header("idempotency-replayed")), (200, "true"), "{again:?}");
    eventually("nothing is left to do", SOON, async || {
        chained.count("SELECT count(*) FROM apalis.jobs WHERE status <> 'Done'").await == 0
    })
    .await;
    assert_eq!(chained.system.history(10).await, ["5.0"]);
    assert_eq!(chained.count("SELECT count(*) FROM chain_sends").await, 1);
    chained.assert_no_secret(&[&worker]);
}

#[tokio::test]
async fn a_transaction_that_the_node_forgot_is_sent_again() {
    let Some(mut chained) = Chained::start().await else { return };
    let request = chained.submit_and_wait(5, "k").await;
    // Recorded, but as if the process had died before it sent anything: nobody has it.
    chained.system.api.process.signal(Signal::SIGKILL);
    assert!(request.await.expect("a task").is_none());
    chained.node.drop_transaction(&chained.hash().await).await;
    chained.node.set_automine(true).await;
    let _worker = chained.reconcile().await;
    eventually("it is saved", SOON, async || chained.pending().await == 0).await;
    chained.system.api = chained.api().await;
    assert_eq!(chained.system.history(10).await, ["5.0"]);
    assert_eq!(chained.count("SELECT count(*) FROM chain_sends").await, 1, "the same bytes");
}

#[tokio::test]
async fn a_nonce_that_another_used_is_not_the_end() {
    let Some(chained) = Chained::start().await else { return };
    let request = chained.submit_and_wait(5, "k").await;
    let nonce = chained.node.call("eth_getTransactionCount", json!([OWNER, "latest"])).await;
    let fee = "0x174876e800";
    let foreign = json!([{ "from": OWNER, "to": OTHER, "value": "0x1", "nonce": nonce, "gas": "0x5208",
        "maxFeePerGas": fee, "maxPriorityFeePerGas": fee }]);
    chained.node.call("eth_sendTransaction", foreign).await;
    chained.node.mine().await;
    chained.node.set_automine(true).await;
    let answer = request.await.expect("a task").expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(chained.system.history(10).await, ["5.0"]);
    assert_eq!(chained.count("SELECT count(DISTINCT nonce) FROM chain_sends").await, 2);
}

#[tokio::test]
async fn a_transaction_that_pays_too_little_is_replaced() {
    let Some(chained) = Chained::start().await else { return };
    let request = chained.submit_and_wait(5, "k").await;
    let aged = "UPDATE chain_sends SET sent_at = sent_at - interval '2 minutes'";
    sqlx::query(aged).execute(&chained.pool).await.expect("a row");
    eventually("a dearer one is sent", SOON, async || chained.count("SELECT count(*) FROM chain_sends").await == 2)
        .await;
    chained.node.mine().await;
    let answer = request.await.expect("a task").expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(chained.system.history(10).await, ["5.0"]);
    assert_eq!(chained.count("SELECT count(DISTINCT nonce) FROM chain_sends").await, 1, "the one nonce");
}

#[tokio::test]
async fn a_node_that_dies_in_the_middle_leaves_what_was_promised_and_nothing_else() {
    let Some(mut chained) = Chained::start().await else { return };
    let system = &chained.system;
    let submitted = Vec::from_iter((1..=60).map(|rate| {
        let request = system.call(Method::POST, "/asset").json(&one(rate));
        tokio::spawn(async move { (rate, send(request).await) })
    }));
    eventually("some are saved", SOON, async || {
        chained.count("SELECT count(*) FROM interest_rates WHERE state = 'saved'").await >= 5
    })
    .await;
    chained.node.stop().await;
    let mut promised = Vec::new();
    for (rate, answer) in join_all(submitted).await.into_iter().map(|task| task.expect("an answer")) {
        match answer.status {
            200 => promised.push(rate),
            503 if answer.json()["type"] == "urn:millrace:problem:unconfirmed" => promised.push(rate),
            503 => {}
            _ => panic!("{rate}: {answer:?}"),
        }
    }
    assert!(promised.len() < 60, "the node has died before the end");
    chained.node.start_again().await;
    let worker = chained.reconcile().await;
    eventually("nothing is left to do", SOON, async || chained.pending().await == 0).await;
    let mut saved: Vec<i32> = (chained.system.history(100).await.iter())
        .map(|rate| rate.trim_end_matches(".0").parse().expect("a number"))
        .collect();
    saved.sort_unstable();
    assert_eq!(saved, promised, "each once, and no other");
    chained.assert_no_secret(&[&worker]);
}

#[tokio::test]
async fn what_is_wrong_with_the_chain_stops_the_start() {
    let database = database::fresh().await;
    let variables = [
        ("DATABASE_URL", &*database.url),
        ("PORT", "0"),
        ("STORAGE_BACKEND", "smart_contract"),
        ("CHAIN_PRIVATE_KEY", "0xsecret"),
    ];
    for program in ["api", "worker"] {
        let mut process = Process::start(&[program], &variables);
        assert_ne!(process.wait_for_exit(SOON).await.code(), Some(0));
        let log = process.log();
        for name in ["CHAIN_RPC_URL: ", "CHAIN_PRIVATE_KEY: ", "CONTRACT_ADDRESS: "] {
            assert!(log.contains(name), "{program}: {name}: {log}");
        }
        assert!(!log.contains("secret"), "{log}");
    }
}
