//! Interest rates in a contract on a real node: the same responses, and each submission is saved once despite crashes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use jobs::interest_rates::chain::{self, Account};
use nix::sys::signal::Signal;
use reqwest::Method;
use runtime::config::EnvReader;
use serde_json::json;
use sqlx::PgPool;

use super::{KEY, SAVED, System, one_asset, start_api};
use crate::harness::{
    anvil::{Node, OTHER, OWNER, OWNER_KEY},
    database, eventually,
    http::{HttpResponse, send, send_until},
    process::{self, Api, Process},
};

const SOON: Duration = Duration::from_secs(60);

/// An API with its own database, node and contract.
pub(super) struct ChainHarness {
    pub(super) node: Node,
    /// The node's URL in the configuration of the processes.
    url: String,
    pub(super) contract: String,
    pub(super) system: System,
    pub(super) pool: PgPool,
}

impl ChainHarness {
    async fn start() -> Option<Self> {
        let node = Node::start().await?;
        let url = node.url.clone();
        Some(Self::start_with_node(node, url).await)
    }

    /// Starts an API that reaches this node at `url`.
    pub(super) async fn start_with_node(node: Node, url: String) -> Self {
        drop(process::http_client());
        let mut vars = EnvReader::from_pairs(&[("CHAIN_RPC_URL", &node.url), ("CHAIN_PRIVATE_KEY", OWNER_KEY)]);
        let account = Account::read(&mut vars);
        let account = vars.finish(account).unwrap().unwrap();
        let contract = chain::deploy(&account).await.expect("a contract");
        let database = database::fresh().await;
        let pool = database.pool().await;
        let api = start_api(&database, &variables(&url, &contract)).await;
        let system = System { api, client: process::http_client(), database };
        Self { node, url, contract, system, pool }
    }

    /// Starts another API process.
    pub(super) async fn start_api(&self) -> Api {
        start_api(&self.system.database, &variables(&self.url, &self.contract)).await
    }

    /// Starts a worker. All pending submissions are due at once.
    pub(super) async fn start_reconciling_worker(&self) -> Process {
        let now = "UPDATE apalis.jobs SET run_at = now() WHERE job_type = 'reconcile_rate' AND status = 'Pending'";
        sqlx::query(now).execute(&self.pool).await.expect("jobs");
        process::start_worker(&self.system.database.url, &variables(&self.url, &self.contract)).await
    }

    /// Waits until the process is ready. A check has 2 s, which a busy machine may exceed. The limit is below the 30 s
    /// for which a refusal counts.
    pub(super) async fn assert_ready(&self) {
        let is_ready = async || self.system.get_with_key("/readyz").await.status == 200;
        eventually("the process is ready", Duration::from_secs(20), is_ready).await;
    }

    pub(super) async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.pool).await.expect("a number")
    }

    pub(super) async fn count_pending(&self) -> i64 {
        self.count("SELECT count(*) FROM interest_rates WHERE state = 'pending'").await
    }

    /// Submits a rate and waits until the node has its transaction, without mining it. Returns the open request.
    pub(super) async fn submit_and_wait(
        &self,
        rate: i32,
        key: &'static str,
    ) -> tokio::task::JoinHandle<Option<HttpResponse>> {
        self.node.set_automine(false).await;
        let request =
            self.system.request_with_key(Method::POST, "/asset").header("idempotency-key", key).json(&one_asset(rate));
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

    /// The hash of the last signed transaction.
    pub(super) async fn last_hash(&self) -> String {
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
async fn the_documented_session_works_on_a_chain() {
    let Some(harness) = ChainHarness::start().await else { return };
    let system = &harness.system;
    assert_eq!(system.get_with_key("/").await.json()["storage_backend"], "smart_contract");
    harness.assert_ready().await;
    let problem = system.get_with_key("/interest_rate").await.assert_problem(404, "no submission yet");
    assert_eq!(problem["detail"], "No interest rate found. Please update assets first.");
    let assets = json!([{"id": "id-1", "interest_rate": 100}, {"id": "id-2", "interest_rate": 10}]);
    let saved = system.submit_idempotent("k", assets.clone()).await;
    assert_eq!((saved.status, saved.json()), (200, json!({"message": SAVED})), "{saved:?}");
    assert_eq!(system.current_rate().await, "55.0");
    let again = system.submit_idempotent("k", assets).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (200, "true"), "{again:?}");
    system.submit_idempotent("k", one_asset(1)).await.assert_problem(422, "another body");
    for (rate, shown) in [
        ("0.0000000000000000005", "0.0"),
        ("1.6666666666666666665", "1.666666666666666666"),
        ("99999999999999999999.9999999999999999999", "100000000000000000000.0"),
    ] {
        assert_eq!(system.submit(one_asset(rate)).await.status, 200);
        assert_eq!(system.current_rate().await, shown, "{rate}");
    }
    let all = ["100000000000000000000.0", "1.666666666666666666", "0.0", "55.0"];
    for limit in [1, 3, 100] {
        assert_eq!(system.history(limit).await, all, "{limit} a page");
    }
    let time = system.get_with_key("/interest_rate").await.json()["updated_at"].as_str().expect("a time").to_owned();
    assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
    assert_eq!(harness.count_pending().await, 0);
    harness.assert_no_secret(&[]);
}

#[tokio::test]
async fn concurrent_processes_save_each_rate_once() {
    let Some(harness) = ChainHarness::start().await else { return };
    let second = harness.start_api().await;
    let submit = async |rate: usize| {
        let url = if rate.is_multiple_of(2) { &harness.system.api.url } else { &second.url };
        let request = harness.system.client.post(format!("{url}/asset")).header("api_key", KEY);
        let request = request.header("idempotency-key", rate.to_string()).json(&one_asset(rate));
        // A request waits for 20 s, and the rates are sent one by one. On a busy machine it is repeated.
        send_until(request, |response| response.status != 503).await
    };
    let responses = join_all((1..=40).map(submit)).await;
    assert!(responses.iter().all(|response| response.status == 200), "{responses:?}");
    let mut saved = harness.system.history(100).await;
    saved.sort_by_key(|rate| rate.trim_end_matches(".0").parse::<usize>().expect("a number"));
    assert_eq!(saved, (1..=40).map(|rate| format!("{rate}.0")).collect::<Vec<_>>());
    let used = harness.node.call("eth_getTransactionCount", json!([OWNER, "latest"])).await;
    assert_eq!(used, "0x29", "one transaction for each rate, and one for the contract");
    // No two processes signed with the same nonce, because one process at a time holds the sender.
    assert_eq!(harness.count("SELECT count(*) FROM chain_sends").await, 40);
    harness.assert_no_secret(&[&second.process]);
}

#[tokio::test]
async fn a_stopped_chain_is_503_and_saves_nothing() {
    let Some(mut harness) = ChainHarness::start().await else { return };
    harness.node.stop().await;
    // The API starts without the node.
    harness.system.api = harness.start_api().await;
    let system = &harness.system;
    for path in ["/readyz", "/interest_rate", "/interest_rate/history"] {
        let refused = system.get_with_key(path).await;
        refused.assert_problem(503, path);
        assert!(!refused.header("retry-after").is_empty(), "{refused:?}");
        assert!(!refused.text.contains("127.0.0.1"), "the response hides the node: {refused:?}");
    }
    assert_eq!(system.get_with_key("/livez").await.status, 200);
    let refused = system.submit_idempotent("k", one_asset(5)).await;
    refused.assert_problem(503, "a stopped node");
    assert_eq!(harness.count_pending().await, 0);
    harness.node.start_again().await;
    let worker = harness.start_reconciling_worker().await;
    eventually("ready again", SOON, async || system.get_with_key("/readyz").await.status == 200).await;
    eventually("the job is done", SOON, async || {
        harness.count("SELECT count(*) FROM apalis.jobs WHERE status <> 'Done'").await == 0
    })
    .await;
    system.get_with_key("/interest_rate").await.assert_problem(404, "the 503 meant that the rate is not saved");
    let saved = system.submit_idempotent("k", one_asset(6)).await;
    assert_eq!((saved.status, saved.header("idempotency-replayed")), (200, ""), "its key can be used again: {saved:?}");
    assert_eq!(system.history(10).await, ["6.0"]);
    harness.assert_no_secret(&[&worker]);
}

#[tokio::test]
async fn a_process_killed_before_the_receipt_saves_the_rate_once() {
    let Some(mut harness) = ChainHarness::start().await else { return };
    let request = harness.submit_and_wait(5, "k").await;
    harness.system.api.process.signal(Signal::SIGKILL);
    assert!(request.await.expect("a task").is_none(), "the client got no response");
    harness.system.api = harness.start_api().await;
    let worker = harness.start_reconciling_worker().await;
    // While the job waits for the block, the sender repeats the request. Both drive the same submission.
    let again = tokio::spawn(send(
        harness.system.request_with_key(Method::POST, "/asset").header("idempotency-key", "k").json(&one_asset(5)),
    ));
    harness.node.mine().await;
    let again = again.await.expect("a response");
    assert_eq!((again.status, again.header("idempotency-replayed")), (200, "true"), "{again:?}");
    eventually("all submissions are settled", SOON, async || {
        harness.count("SELECT count(*) FROM apalis.jobs WHERE status <> 'Done'").await == 0
    })
    .await;
    assert_eq!(harness.system.history(10).await, ["5.0"]);
    assert_eq!(harness.count("SELECT count(*) FROM chain_sends").await, 1);
    harness.assert_no_secret(&[&worker]);
}

#[tokio::test]
async fn a_transaction_that_the_node_dropped_is_sent_again() {
    let Some(mut harness) = ChainHarness::start().await else { return };
    let request = harness.submit_and_wait(5, "k").await;
    // The submission is stored, but the node has no transaction, as if the process had died before it sent one.
    harness.system.api.process.signal(Signal::SIGKILL);
    assert!(request.await.expect("a task").is_none());
    harness.node.drop_transaction(&harness.last_hash().await).await;
    harness.node.set_automine(true).await;
    let _worker = harness.start_reconciling_worker().await;
    eventually("the submission is saved", SOON, async || harness.count_pending().await == 0).await;
    harness.system.api = harness.start_api().await;
    assert_eq!(harness.system.history(10).await, ["5.0"]);
    assert_eq!(harness.count("SELECT count(*) FROM chain_sends").await, 1, "the same signed bytes are sent");
}

#[tokio::test]
async fn a_nonce_used_by_another_transaction_is_replaced() {
    let Some(harness) = ChainHarness::start().await else { return };
    let request = harness.submit_and_wait(5, "k").await;
    let nonce = harness.node.call("eth_getTransactionCount", json!([OWNER, "latest"])).await;
    let fee = "0x174876e800";
    let foreign = json!([{ "from": OWNER, "to": OTHER, "value": "0x1", "nonce": nonce, "gas": "0x5208",
        "maxFeePerGas": fee, "maxPriorityFeePerGas": fee }]);
    harness.node.call("eth_sendTransaction", foreign).await;
    harness.node.mine().await;
    harness.node.set_automine(true).await;
    // The next transaction may have been sent in between. It is not mined by itself then.
    harness.node.mine().await;
    let response = request.await.expect("a task").expect("a response");
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(harness.system.history(10).await, ["5.0"]);
    assert_eq!(harness.count("SELECT count(DISTINCT nonce) FROM chain_sends").await, 2);
}

#[tokio::test]
async fn an_underpaid_transaction_is_replaced() {
    let Some(harness) = ChainHarness::start().await else { return };
    let request = harness.submit_and_wait(5, "k").await;
    let aged = "UPDATE chain_sends SET sent_at = sent_at - interval '2 minutes'";
    sqlx::query(aged).execute(&harness.pool).await.expect("a row");
    eventually("a replacement with a higher fee is sent", SOON, async || {
        harness.count("SELECT count(*) FROM chain_sends").await == 2
    })
    .await;
    harness.node.mine().await;
    let response = request.await.expect("a task").expect("a response");
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(harness.system.history(10).await, ["5.0"]);
    assert_eq!(
        harness.count("SELECT count(DISTINCT nonce) FROM chain_sends").await,
        1,
        "the replacement has the same nonce"
    );
}

#[tokio::test]
async fn a_node_crash_keeps_promised_submissions_and_no_others() {
    let Some(mut harness) = ChainHarness::start().await else { return };
    let (client, url) = (&harness.system.client, format!("{}/asset", harness.system.api.url));
    let next = Arc::new(AtomicI32::new(1));
    // Each client submits until it is refused, so that the node stops before the last submission on any machine.
    let submitted = Vec::from_iter((0..20).map(|_| {
        let (client, url, next) = (client.clone(), url.clone(), next.clone());
        tokio::spawn(async move {
            let mut responses: Vec<(i32, HttpResponse)> = Vec::new();
            while responses.last().is_none_or(|(_, response)| response.status == 200) {
                let rate = next.fetch_add(1, Ordering::Relaxed);
                let request = client.post(&url).header("api_key", KEY).json(&one_asset(rate));
                responses.push((rate, send(request).await));
            }
            responses
        })
    }));
    eventually("five submissions are saved", SOON, async || {
        harness.count("SELECT count(*) FROM interest_rates WHERE state = 'saved'").await >= 5
    })
    .await;
    harness.node.stop().await;
    let (mut promised, mut refused) = (Vec::new(), 0);
    for (rate, response) in join_all(submitted).await.into_iter().flat_map(|task| task.expect("responses")) {
        match response.status {
            200 => promised.push(rate),
            503 if response.json()["type"] == "urn:millrace:problem:unconfirmed" => promised.push(rate),
            503 => refused += 1,
            _ => panic!("{rate}: {response:?}"),
        }
    }
    assert!(refused > 0, "the node stopped before the last submission");
    promised.sort_unstable();
    harness.node.start_again().await;
    let worker = harness.start_reconciling_worker().await;
    eventually("all submissions are settled", SOON, async || harness.count_pending().await == 0).await;
    let mut saved: Vec<i32> = (harness.system.history(100).await.iter())
        .map(|rate| rate.trim_end_matches(".0").parse().expect("a number"))
        .collect();
    saved.sort_unstable();
    assert_eq!(saved, promised, "each promised rate once, and no other");
    harness.assert_no_secret(&[&worker]);
}

#[tokio::test]
async fn invalid_chain_configuration_stops_the_start() {
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
