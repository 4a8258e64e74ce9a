//! What a node refuses, forgets to answer or does not know: nothing is promised that is not kept, and what is promised is
//! saved as soon as it can be.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use super::{
    onchain::Chained,
    one,
    proxy::{Proxy, Rule},
};
use crate::harness::{
    anvil::{Node, OWNER},
    eventually,
};

const SOON: Duration = Duration::from_secs(60);
const ALWAYS: usize = usize::MAX;
const SEND: &str = "eth_sendRawTransaction";

async fn chained() -> Option<(Chained, Proxy)> {
    let node = Node::start().await?;
    let proxy = Proxy::start(&node.url).await;
    Some((Chained::over(node, proxy.url.clone()).await, proxy))
}

impl Chained {
    async fn fund(&self, wei: &str) {
        self.node.call("anvil_setBalance", json!([OWNER, wei])).await;
    }

    /// How often the chain did not do what it was asked, for this reason.
    async fn errors(&self, reason: &str) -> u64 {
        let metrics = self.system.get("/metrics").await.text;
        let series = format!("millrace_chain_errors_total{{reason=\"{reason}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&*series));
        line.unwrap_or_else(|| panic!("{series} in {metrics}")).parse().expect("a count")
    }

    /// The process is not ready, and its log says why.
    async fn assert_unready(&self, why: &str) {
        self.system.get("/readyz").await.assert_problem(503, why);
        eventually("the log says why", SOON, async || {
            let log = self.system.api.process.log();
            log.lines().any(|line| line.contains("\"cause\":\"not ready: ") && line.contains(why))
        })
        .await;
    }

    /// A submission that must end with a plain 503, which leaves nothing behind.
    async fn assert_withdrawn(&self, key: &str, case: &str) {
        let refused = self.system.submit_as(key, one(5)).await;
        let problem = refused.assert_problem(503, case);
        assert_ne!(problem["type"], "urn:millrace:problem:unconfirmed", "{case}: nothing is promised: {problem}");
        assert!(!refused.header("retry-after").is_empty(), "{case}: {refused:?}");
        assert_eq!(self.pending().await, 0, "{case}");
        assert_eq!(self.count("SELECT count(*) FROM chain_sends").await, 0, "{case}");
    }
}

#[tokio::test]
async fn an_account_without_funds_is_a_plain_503_and_unready_until_it_is_funded() {
    let Some((chained, _proxy)) = chained().await else { return };
    let system = &chained.system;
    assert_eq!(chained.errors("unfunded").await, 0);
    assert_eq!(system.get("/readyz").await.status, 200);
    chained.fund("0x1").await;
    chained.assert_withdrawn("k", "no funds").await;
    chained.assert_unready("the account of CHAIN_PRIVATE_KEY cannot pay for it: 0x").await;
    chained.assert_unready("has 1 wei").await;
    assert!(chained.errors("unfunded").await >= 1);
    // Its job finds nothing left to do, and its key is free.
    let _worker = chained.reconcile().await;
    eventually("the job is done", SOON, async || {
        chained.count("SELECT count(*) FROM apalis.jobs WHERE status <> 'Done'").await == 0
    })
    .await;
    chained.fund("0xde0b6b3a7640000").await;
    assert_eq!(system.get("/readyz").await.status, 200);
    let saved = system.submit_as("k", one(6)).await;
    assert_eq!((saved.status, saved.header("idempotency-replayed")), (200, ""), "{saved:?}");
    assert_eq!(system.history(10).await, ["6.0"]);
}

#[tokio::test]
async fn what_the_node_refuses_at_the_first_send_is_withdrawn() {
    let Some((chained, proxy)) = chained().await else { return };
    let system = &chained.system;
    for (case, code, message, reason) in [
        ("funds", -32000, "insufficient funds for gas * price + value: balance 1, tx cost 2, overshot 1", "unfunded"),
        ("funds as an internal error", -32603, "insufficient funds for gas", "unfunded"),
        ("a cap of the node's", -32000, "tx fee (1.50 ether) exceeds the configured cap (1.00 ether)", "refused"),
        ("gas", -32000, "exceeds block gas limit", "refused"),
        ("a full pool", -32000, "txpool is full", "refused"),
        ("price", -32000, "max fee per gas less than block base fee", "refused"),
    ] {
        let before = chained.errors(reason).await;
        proxy.apply(SEND, Rule::Refuse { code, message }, ALWAYS);
        chained.assert_withdrawn("k", case).await;
        assert!(chained.errors(reason).await > before, "{case}");
        proxy.heal();
    }
    // The last refusal counts for readiness until something is accepted.
    proxy.apply(SEND, Rule::Refuse { code: -32000, message: "exceeds block gas limit" }, ALWAYS);
    chained.assert_withdrawn("k", "gas again").await;
    chained.assert_unready("exceeds block gas limit").await;
    proxy.heal();
    assert_eq!(system.submit_as("k", one(7)).await.status, 200);
    assert_eq!(system.get("/readyz").await.status, 200);
    assert_eq!(system.history(10).await, ["7.0"]);
}

#[tokio::test]
async fn a_refusal_of_what_the_node_has_is_none() {
    let Some((chained, proxy)) = chained().await else { return };
    // The node takes it, and its answer is lost; the same bytes again get words that mean that it has them.
    proxy.apply(SEND, Rule::LoseAnswer, 1);
    proxy.apply(SEND, Rule::Refuse { code: -32000, message: "this one is in the pool" }, ALWAYS);
    let saved = chained.system.submit(one(5)).await;
    assert_eq!(saved.status, 200, "{saved:?}");
    assert_eq!(chained.system.history(10).await, ["5.0"]);
}

#[tokio::test]
async fn what_is_promised_outlives_any_number_of_refusals() {
    let Some((mut chained, proxy)) = chained().await else { return };
    let request = chained.submit_and_wait(5, "k").await;
    chained.system.api.process.signal(Signal::SIGKILL);
    assert!(request.await.expect("a task").is_none());
    // The node has forgotten it, and refuses it from now on.
    chained.node.drop_transaction(&chained.hash().await).await;
    chained.node.set_automine(true).await;
    proxy.apply(SEND, Rule::Refuse { code: -32000, message: "insufficient funds for transfer" }, ALWAYS);
    let _worker = chained.reconcile().await;
    // More often than a job that fails is run.
    for runs in 1..=12 {
        eventually("the job has run again", SOON, async || {
            let now = "UPDATE apalis.jobs SET run_at = now()
                       WHERE job_type = 'reconcile_rate' AND status = 'Pending' AND run_at > now() + interval '1 s'";
            sqlx::query(now).execute(&chained.pool).await.expect("a job");
            proxy.calls(SEND) > runs
        })
        .await;
    }
    assert_eq!(chained.pending().await, 1);
    assert_eq!(chained.count("SELECT count(*) FROM apalis.jobs WHERE status = 'Killed' OR failures > 0").await, 0);
    proxy.heal();
    eventually("it is saved", SOON, async || chained.pending().await == 0).await;
    chained.system.api = chained.api().await;
    assert_eq!(chained.system.history(10).await, ["5.0"]);
}

#[tokio::test]
async fn a_job_that_an_operator_cancels_leaves_nothing_pending_that_was_not_sent() {
    let Some((chained, proxy)) = chained().await else { return };
    // As a process leaves it that dies before it has signed anything.
    let record = "INSERT INTO interest_rates (backend, rate, assets, idempotency_key, state)
                  VALUES ('smart_contract', 5, '[{\"id\": \"id-1\", \"interest_rate\": \"5\"}]', 'k', 'pending') RETURNING id";
    let id: uuid::Uuid = sqlx::query_scalar(record).fetch_one(&chained.pool).await.expect("an id");
    let job = "INSERT INTO apalis.jobs (id, job_type, job, status, run_at, priority)
               VALUES ('01JDCANCELLED0000000000000', 'reconcile_rate', convert_to($1, 'UTF8'), 'Pending', now() + interval '1 hour', 0)";
    sqlx::query(job).bind(json!({ "id": id }).to_string()).execute(&chained.pool).await.expect("a job");
    let cancelled = std::process::Command::new(env!("CARGO_BIN_EXE_millrace"))
        .args(["jobs", "cancel", "01JDCANCELLED0000000000000"])
        .env_clear()
        .envs([("DATABASE_URL", &*chained.system.database.url), ("STORAGE_BACKEND", "smart_contract")])
        .envs([("CHAIN_RPC_URL", &*proxy.url), ("CONTRACT_ADDRESS", &*chained.contract)])
        .env("CHAIN_PRIVATE_KEY", crate::harness::anvil::OWNER_KEY)
        .output()
        .unwrap();
    assert!(cancelled.status.success(), "{cancelled:?}");
    assert_eq!(chained.pending().await, 0);
    let saved = chained.system.submit_as("k", one(6)).await;
    assert_eq!(saved.status, 200, "its key is free: {saved:?}");
}

#[tokio::test]
async fn a_lost_answer_to_a_send_is_waited_for() {
    let Some((chained, proxy)) = chained().await else { return };
    let system = &chained.system;
    // The node has it, and says so when it is asked for the transaction.
    proxy.apply(SEND, Rule::LoseAnswer, 1);
    let saved = system.submit_as("k", one(5)).await;
    assert_eq!(saved.status, 200, "{saved:?}");
    assert_eq!(chained.count("SELECT count(*) FROM chain_sends").await, 1);
    // The node never got it, and gets it again.
    for (code, message) in [(-32603, "Internal error"), (-32000, "request timed out"), (-32029, "Too Many Requests")] {
        proxy.apply(SEND, Rule::Refuse { code, message }, 1);
        let saved = system.submit(one(6)).await;
        assert_eq!(saved.status, 200, "{message}: {saved:?}");
    }
    // Looks that fail after the send are no end either.
    proxy.apply("eth_getTransactionReceipt", Rule::LoseAnswer, 2);
    assert_eq!(system.submit(one(7)).await.status, 200);
    assert_eq!(system.history(10).await, ["7.0", "6.0", "6.0", "6.0", "5.0"]);
    // Until the 20 seconds are over: then it is promised.
    chained.node.set_automine(false).await;
    proxy.apply(SEND, Rule::LoseAnswer, ALWAYS);
    let begun = Instant::now();
    let promised = system.submit_as("promised", one(8)).await;
    let problem = promised.assert_problem(503, "no block");
    assert_eq!(problem["type"], "urn:millrace:problem:unconfirmed", "{problem}");
    assert!(begun.elapsed() >= Duration::from_secs(19), "{:?}", begun.elapsed());
    proxy.heal();
    chained.node.mine().await;
    chained.node.set_automine(true).await;
    let _worker = chained.reconcile().await;
    eventually("the promise is kept", SOON, async || chained.pending().await == 0).await;
    assert_eq!(system.current().await, "8.0");
}

#[tokio::test]
async fn a_chain_without_base_fees_is_written_to() {
    let Some(node) = Node::start_with(&["--hardfork", "berlin"]).await else { return };
    let url = node.url.clone();
    let chained = Chained::over(node, url).await;
    let block = chained.node.call("eth_getBlockByNumber", json!(["latest", false])).await;
    assert!(block["baseFeePerGas"].is_null(), "{block}");
    assert_eq!(chained.system.get("/readyz").await.status, 200);
    for rate in 1..=3 {
        assert_eq!(chained.system.submit(one(rate)).await.status, 200);
    }
    assert_eq!(chained.system.history(10).await, ["3.0", "2.0", "1.0"]);
    let hash = chained.hash().await;
    let sent = chained.node.call("eth_getTransactionByHash", json!([hash])).await;
    assert!(sent["type"] == "0x0" || sent["type"].is_null(), "{sent}");
    // One that pays too little is replaced here as well.
    let request = chained.submit_and_wait(4, "k").await;
    let aged = "UPDATE chain_sends SET sent_at = sent_at - interval '2 minutes'";
    sqlx::query(aged).execute(&chained.pool).await.expect("a row");
    eventually("a dearer one is sent", SOON, async || chained.count("SELECT count(*) FROM chain_sends").await == 5)
        .await;
    chained.node.mine().await;
    let answer = request.await.expect("a task").expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_node_without_advice_on_priority_fees_is_asked_for_a_price() {
    let Some((chained, proxy)) = chained().await else { return };
    for (code, message) in [
        (-32601, "the method eth_maxPriorityFeePerGas does not exist/is not available"),
        (-32600, "unsupported method"),
        (-32004, "method not supported"),
    ] {
        proxy.apply("eth_maxPriorityFeePerGas", Rule::Refuse { code, message }, ALWAYS);
        assert_eq!(chained.system.get("/readyz").await.status, 200, "{message}");
        assert_eq!(chained.system.submit(one(5)).await.status, 200, "{message}");
        proxy.heal();
    }
    // Neither, on a chain that shows no base fee.
    proxy.apply("eth_maxPriorityFeePerGas", Rule::Refuse { code: -32601, message: "no such method" }, ALWAYS);
    proxy.apply("eth_getBlockByNumber", Rule::Without { field: "baseFeePerGas" }, ALWAYS);
    assert_eq!(chained.system.submit(one(6)).await.status, 200);
    // A node that advises nothing at all is not ready, and says why.
    proxy.apply("eth_gasPrice", Rule::Refuse { code: -32601, message: "no such method" }, ALWAYS);
    let refused = chained.system.submit(one(7)).await;
    refused.assert_problem(503, "no price");
    assert_eq!(chained.pending().await, 0);
    chained.assert_unready("no such method").await;
}
