//! Errors of a node: a withdrawn submission leaves nothing behind, and a promised one is saved once the node accepts it.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use super::{
    onchain::ChainHarness,
    one_asset,
    proxy::{Fault, Proxy},
};
use crate::harness::{
    anvil::{Node, OWNER},
    eventually,
};

const SOON: Duration = Duration::from_secs(60);
const ALWAYS: usize = usize::MAX;
const SEND: &str = "eth_sendRawTransaction";

async fn start_through_proxy() -> Option<(ChainHarness, Proxy)> {
    let node = Node::start().await?;
    let proxy = Proxy::start(&node.url).await;
    Some((ChainHarness::start_with_node(node, proxy.url.clone()).await, proxy))
}

impl ChainHarness {
    async fn set_balance(&self, wei: &str) {
        self.node.call("anvil_setBalance", json!([OWNER, wei])).await;
    }

    /// The number of chain errors with this reason, by `/metrics`.
    async fn count_errors(&self, reason: &str) -> u64 {
        self.system.metric(&format!("millrace_chain_errors_total{{reason=\"{reason}\"}}")).await
    }

    /// Asserts that the process is not ready, and that its log has this reason.
    async fn assert_unready(&self, reason: &str) {
        // A check that takes longer than 2 s has another reason, and is repeated.
        eventually("the log has the reason", SOON, async || {
            self.system.get_with_key("/readyz").await.assert_problem(503, reason);
            let log = self.system.api.process.log();
            log.lines().any(|line| line.contains("\"cause\":\"not ready: ") && line.contains(reason))
        })
        .await;
    }

    /// Asserts that a submission ends with a plain 503 and leaves nothing behind.
    async fn assert_withdrawn(&self, key: &str, case: &str) {
        let refused = self.system.submit_idempotent(key, one_asset(5)).await;
        let problem = refused.assert_problem(503, case);
        assert_ne!(
            problem["type"], "urn:millrace:problem:unconfirmed",
            "{case}: the submission is not promised: {problem}"
        );
        assert!(!refused.header("retry-after").is_empty(), "{case}: {refused:?}");
        assert_eq!(self.count_pending().await, 0, "{case}");
        assert_eq!(self.count("SELECT count(*) FROM chain_sends").await, 0, "{case}");
    }
}

#[tokio::test]
async fn an_account_without_funds_is_503_until_it_is_funded() {
    let Some((harness, _proxy)) = start_through_proxy().await else { return };
    let system = &harness.system;
    assert_eq!(harness.count_errors("unfunded").await, 0);
    harness.assert_ready().await;
    harness.set_balance("0x1").await;
    harness.assert_withdrawn("k", "no funds").await;
    harness.assert_unready("the account of CHAIN_PRIVATE_KEY cannot pay for it: 0x").await;
    harness.assert_unready("has 1 wei").await;
    assert!(harness.count_errors("unfunded").await >= 1);
    // Its job has no work left, and its key can be used again.
    let _worker = harness.start_reconciling_worker().await;
    eventually("the job is done", SOON, async || {
        harness.count("SELECT count(*) FROM apalis.jobs WHERE status <> 'Done'").await == 0
    })
    .await;
    harness.set_balance("0xde0b6b3a7640000").await;
    harness.assert_ready().await;
    let saved = system.submit_idempotent("k", one_asset(6)).await;
    assert_eq!((saved.status, saved.header("idempotency-replayed")), (200, ""), "{saved:?}");
    assert_eq!(system.history(10).await, ["6.0"]);
}

#[tokio::test]
async fn a_submission_refused_at_its_first_send_is_withdrawn() {
    let Some((harness, proxy)) = start_through_proxy().await else { return };
    let system = &harness.system;
    for (case, code, message, reason) in [
        ("funds", -32000, "insufficient funds for gas * price + value: balance 1, tx cost 2, overshot 1", "unfunded"),
        ("funds as an internal error", -32603, "insufficient funds for gas", "unfunded"),
        ("a fee cap of the node", -32000, "tx fee (1.50 ether) exceeds the configured cap (1.00 ether)", "refused"),
        ("gas", -32000, "exceeds block gas limit", "refused"),
        ("a full pool", -32000, "txpool is full", "refused"),
        ("price", -32000, "max fee per gas less than block base fee", "refused"),
    ] {
        let before = harness.count_errors(reason).await;
        proxy.inject(SEND, Fault::ReturnError { code, message }, ALWAYS);
        harness.assert_withdrawn("k", case).await;
        assert!(harness.count_errors(reason).await > before, "{case}");
        proxy.clear_faults();
    }
    // The last refusal makes the process unready until the node accepts a transaction.
    proxy.inject(SEND, Fault::ReturnError { code: -32000, message: "exceeds block gas limit" }, ALWAYS);
    harness.assert_withdrawn("k", "gas again").await;
    harness.assert_unready("exceeds block gas limit").await;
    proxy.clear_faults();
    assert_eq!(system.submit_idempotent("k", one_asset(7)).await.status, 200);
    harness.assert_ready().await;
    assert_eq!(system.history(10).await, ["7.0"]);
}

#[tokio::test]
async fn a_refusal_of_a_known_transaction_is_ignored() {
    let Some((harness, proxy)) = start_through_proxy().await else { return };
    // The node accepts the transaction, and its response is lost. The same bytes again get an error that means "known".
    proxy.inject(SEND, Fault::LoseResponse, 1);
    proxy.inject(SEND, Fault::ReturnError { code: -32000, message: "this one is in the pool" }, ALWAYS);
    let saved = harness.system.submit(one_asset(5)).await;
    assert_eq!(saved.status, 200, "{saved:?}");
    assert_eq!(harness.system.history(10).await, ["5.0"]);
}

#[tokio::test]
async fn a_promised_submission_survives_repeated_refusals() {
    let Some((mut harness, proxy)) = start_through_proxy().await else { return };
    let request = harness.submit_and_wait(5, "k").await;
    harness.system.api.process.signal(Signal::SIGKILL);
    assert!(request.await.expect("a task").is_none());
    // The node has dropped the transaction and refuses it from now on.
    harness.node.drop_transaction(&harness.last_hash().await).await;
    harness.node.set_automine(true).await;
    proxy.inject(SEND, Fault::ReturnError { code: -32000, message: "insufficient funds for transfer" }, ALWAYS);
    let _worker = harness.start_reconciling_worker().await;
    // More runs than a failing job gets.
    for runs in 1..=12 {
        eventually("the job has run again", SOON, async || {
            let now = "UPDATE apalis.jobs SET run_at = now()
                       WHERE job_type = 'reconcile_rate' AND status = 'Pending' AND run_at > now() + interval '1 s'";
            sqlx::query(now).execute(&harness.pool).await.expect("a job");
            proxy.count_calls(SEND) > runs
        })
        .await;
    }
    assert_eq!(harness.count_pending().await, 1);
    assert_eq!(harness.count("SELECT count(*) FROM apalis.jobs WHERE status = 'Killed' OR failures > 0").await, 0);
    proxy.clear_faults();
    eventually("the submission is saved", SOON, async || harness.count_pending().await == 0).await;
    harness.system.api = harness.start_api().await;
    assert_eq!(harness.system.history(10).await, ["5.0"]);
}

#[tokio::test]
async fn cancelling_the_job_withdraws_an_unsent_submission() {
    let Some((harness, proxy)) = start_through_proxy().await else { return };
    // The state that a process leaves when it dies before it has signed a transaction.
    let record = "INSERT INTO interest_rates (backend, rate, assets, idempotency_key, state)
                  VALUES ('smart_contract', 5, '[{\"id\": \"id-1\", \"interest_rate\": \"5\"}]', 'k', 'pending') RETURNING id";
    let id: uuid::Uuid = sqlx::query_scalar(record).fetch_one(&harness.pool).await.expect("an id");
    let job = "INSERT INTO apalis.jobs (id, job_type, job, status, run_at, priority)
               VALUES ('01JDCANCELLED0000000000000', 'reconcile_rate', convert_to($1, 'UTF8'), 'Pending', now() + interval '1 hour', 0)";
    sqlx::query(job).bind(json!({ "id": id }).to_string()).execute(&harness.pool).await.expect("a job");
    let cancelled = std::process::Command::new(env!("CARGO_BIN_EXE_millrace"))
        .args(["jobs", "cancel", "01JDCANCELLED0000000000000", "--reason", "it was never sent"])
        .env_clear()
        .envs([("DATABASE_URL", &*harness.system.database.url), ("STORAGE_BACKEND", "smart_contract")])
        .envs([("CHAIN_RPC_URL", &*proxy.url), ("CONTRACT_ADDRESS", &*harness.contract)])
        .env("CHAIN_PRIVATE_KEY", crate::harness::anvil::OWNER_KEY)
        .output()
        .unwrap();
    assert!(cancelled.status.success(), "{cancelled:?}");
    assert_eq!(harness.count_pending().await, 0);
    let saved = harness.system.submit_idempotent("k", one_asset(6)).await;
    assert_eq!(saved.status, 200, "its key can be used again: {saved:?}");
}

#[tokio::test]
async fn a_lost_response_to_a_send_is_not_an_error() {
    let Some((harness, proxy)) = start_through_proxy().await else { return };
    let system = &harness.system;
    // The node has the transaction and returns it on request.
    proxy.inject(SEND, Fault::LoseResponse, 1);
    let saved = system.submit_idempotent("k", one_asset(5)).await;
    assert_eq!(saved.status, 200, "{saved:?}");
    assert_eq!(harness.count("SELECT count(*) FROM chain_sends").await, 1);
    // The node did not accept the transaction and receives it again.
    for (code, message) in [(-32603, "Internal error"), (-32000, "request timed out"), (-32029, "Too Many Requests")] {
        proxy.inject(SEND, Fault::ReturnError { code, message }, 1);
        let saved = system.submit(one_asset(6)).await;
        assert_eq!(saved.status, 200, "{message}: {saved:?}");
    }
    // Failing look-ups after the send do not end the submission.
    proxy.inject("eth_getTransactionReceipt", Fault::LoseResponse, 2);
    assert_eq!(system.submit(one_asset(7)).await.status, 200);
    assert_eq!(system.history(10).await, ["7.0", "6.0", "6.0", "6.0", "5.0"]);
    // Without a block for 20 seconds, the response promises the submission.
    harness.node.set_automine(false).await;
    proxy.inject(SEND, Fault::LoseResponse, ALWAYS);
    let begun = Instant::now();
    let promised = system.submit_idempotent("promised", one_asset(8)).await;
    let problem = promised.assert_problem(503, "no block");
    assert_eq!(problem["type"], "urn:millrace:problem:unconfirmed", "{problem}");
    assert!(begun.elapsed() >= Duration::from_secs(19), "{:?}", begun.elapsed());
    proxy.clear_faults();
    harness.node.mine().await;
    harness.node.set_automine(true).await;
    let _worker = harness.start_reconciling_worker().await;
    eventually("the promised submission is saved", SOON, async || harness.count_pending().await == 0).await;
    assert_eq!(system.current_rate().await, "8.0");
}

#[tokio::test]
async fn reverted_transactions_cost_few_fees_and_the_submission_is_saved() {
    let Some((harness, proxy)) = start_through_proxy().await else { return };
    // Too little gas for a saving, so that a block includes each transaction and none succeeds.
    proxy.inject("eth_estimateGas", Fault::ReturnResult("0x7530"), ALWAYS);
    let promised = harness.system.submit_idempotent("k", one_asset(5)).await;
    let problem = promised.assert_problem(503, "reverted transactions");
    assert_eq!(problem["type"], "urn:millrace:problem:unconfirmed", "{problem}");
    let sent = harness.count("SELECT count(*) FROM chain_sends").await;
    assert!(sent <= 5, "the pauses grow: {sent} transactions");
    let log = harness.system.api.process.log();
    assert!(log.contains("reverted") && log.contains("out of gas"), "{log}");
    proxy.clear_faults();
    let aged = "UPDATE chain_sends SET sent_at = sent_at - interval '2 minutes'";
    sqlx::query(aged).execute(&harness.pool).await.expect("rows");
    let _worker = harness.start_reconciling_worker().await;
    eventually("the submission is saved", SOON, async || harness.count_pending().await == 0).await;
    assert_eq!(harness.count("SELECT count(*) FROM chain_sends").await, sent + 1, "one more transaction");
    assert_eq!(harness.system.history(10).await, ["5.0"]);
}

#[tokio::test]
async fn a_node_that_hides_a_transaction_gets_it_again_after_pauses() {
    let Some((harness, proxy)) = start_through_proxy().await else { return };
    // The node accepts the transaction and does not show it, such as one behind a load balancer.
    harness.node.set_automine(false).await;
    proxy.inject("eth_getTransactionByHash", Fault::ReturnNull, ALWAYS);
    let promised = harness.system.submit_idempotent("k", one_asset(5)).await;
    let problem = promised.assert_problem(503, "a hidden transaction");
    assert_eq!(problem["type"], "urn:millrace:problem:unconfirmed", "{problem}");
    let sent = proxy.count_calls(SEND);
    assert!(sent <= 20, "the pauses grow: the same bytes were sent {sent} times");
    proxy.clear_faults();
    harness.node.set_automine(true).await;
    harness.node.mine().await;
    let again = harness.system.submit_idempotent("k", one_asset(5)).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (200, "true"), "{again:?}");
    assert_eq!(harness.count("SELECT count(*) FROM chain_sends").await, 1);
    assert_eq!(harness.system.history(10).await, ["5.0"]);
}

#[tokio::test]
async fn chains_without_base_fees_are_supported() {
    let Some(node) = Node::start_with(&["--hardfork", "berlin"]).await else { return };
    let url = node.url.clone();
    let harness = ChainHarness::start_with_node(node, url).await;
    let block = harness.node.call("eth_getBlockByNumber", json!(["latest", false])).await;
    assert!(block["baseFeePerGas"].is_null(), "{block}");
    harness.assert_ready().await;
    for rate in 1..=3 {
        assert_eq!(harness.system.submit(one_asset(rate)).await.status, 200);
    }
    assert_eq!(harness.system.history(10).await, ["3.0", "2.0", "1.0"]);
    let hash = harness.last_hash().await;
    let sent = harness.node.call("eth_getTransactionByHash", json!([hash])).await;
    assert!(sent["type"] == "0x0" || sent["type"].is_null(), "{sent}");
    // An underpaid transaction is replaced here as well.
    let request = harness.submit_and_wait(4, "k").await;
    let aged = "UPDATE chain_sends SET sent_at = sent_at - interval '2 minutes'";
    sqlx::query(aged).execute(&harness.pool).await.expect("a row");
    eventually("a replacement with a higher fee is sent", SOON, async || {
        harness.count("SELECT count(*) FROM chain_sends").await == 5
    })
    .await;
    harness.node.mine().await;
    let response = request.await.expect("a task").expect("a response");
    assert_eq!(response.status, 200, "{response:?}");
}

#[tokio::test]
async fn nodes_without_priority_fee_advice_use_the_gas_price() {
    let Some((harness, proxy)) = start_through_proxy().await else { return };
    for (code, message) in [
        (-32601, "the method eth_maxPriorityFeePerGas does not exist/is not available"),
        (-32600, "unsupported method"),
        (-32004, "method not supported"),
    ] {
        proxy.inject("eth_maxPriorityFeePerGas", Fault::ReturnError { code, message }, ALWAYS);
        harness.assert_ready().await;
        assert_eq!(harness.system.submit(one_asset(5)).await.status, 200, "{message}");
        proxy.clear_faults();
    }
    // No advice on priority fees, on a chain without base fees.
    proxy.inject("eth_maxPriorityFeePerGas", Fault::ReturnError { code: -32601, message: "no such method" }, ALWAYS);
    proxy.inject("eth_getBlockByNumber", Fault::RemoveField { field: "baseFeePerGas" }, ALWAYS);
    assert_eq!(harness.system.submit(one_asset(6)).await.status, 200);
    // A node without any fee advice makes the process unready with a reason.
    proxy.inject("eth_gasPrice", Fault::ReturnError { code: -32601, message: "no such method" }, ALWAYS);
    let refused = harness.system.submit(one_asset(7)).await;
    refused.assert_problem(503, "no price");
    assert_eq!(harness.count_pending().await, 0);
    harness.assert_unready("no such method").await;
}
