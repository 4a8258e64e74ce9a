//! Outcomes of a transaction between its signature and its block: waiting, dropped, confirmed, reverted,
//! superseded.

use std::time::Duration;

use jobs::interest_rates::chain::{Chain, ChainError, Fees, Outcome, SentTransaction, SignedTransaction};
use serde_json::json;

use super::{ContractHarness, ONE, SOON, id, rate};
use crate::harness::anvil::{OTHER, OWNER};

async fn outcome(chain: &Chain, prepared: &[&SignedTransaction]) -> Outcome {
    let sent: Vec<SentTransaction> =
        prepared.iter().map(|one| SentTransaction { nonce: one.nonce, hash: one.hash }).collect();
    chain.outcome(&sent).await.expect("an outcome")
}

fn is_confirmed(outcome: &Outcome, by: &SignedTransaction) -> bool {
    matches!(outcome, Outcome::Confirmed(receipt) if receipt.hash == by.hash && receipt.succeeded)
}

#[tokio::test]
async fn a_transaction_is_dropped_waiting_known_and_confirmed() {
    let Some(ContractHarness { node, chain, .. }) = ContractHarness::new().await else { return };
    node.set_automine(false).await;
    let prepared = chain.prepare(id(1), rate(ONE)).await.unwrap();
    assert_eq!(outcome(&chain, &[&prepared]).await, Outcome::Dropped, "not sent yet");
    chain.send(&prepared.raw).await.unwrap();
    assert_eq!(outcome(&chain, &[&prepared]).await, Outcome::Waiting);
    assert_eq!(chain.send(&prepared.raw).await, Ok(()), "a known transaction is accepted again");
    assert_eq!(chain.await_receipt(prepared.hash, Duration::from_millis(300)).await, Ok(None));
    node.mine().await;
    let receipt = chain.await_receipt(prepared.hash, SOON).await.unwrap().expect("a receipt");
    assert_eq!(outcome(&chain, &[&prepared]).await, Outcome::Confirmed(receipt));
    assert_eq!(chain.send(&prepared.raw).await, Err(ChainError::NonceUsed), "its own nonce is used");
    assert_eq!(outcome(&chain, &[]).await, Outcome::Superseded, "no transaction was sent");
}

#[tokio::test]
async fn nonces_follow_waiting_transactions_without_a_gap() {
    let Some(harness) = ContractHarness::new().await else { return };
    harness.save(id(1), ONE).await;
    harness.node.set_automine(false).await;
    let first = harness.send(id(2), ONE).await;
    // This one is refused before it gets a nonce, so it leaves no gap.
    harness.chain.prepare(id(1), rate(ONE)).await.expect_err("the id is saved");
    let second = harness.send(id(3), ONE).await;
    assert_eq!(second.nonce, first.nonce + 1);
    harness.node.mine().await;
    assert!(is_confirmed(&outcome(&harness.chain, &[&first]).await, &first));
    assert!(is_confirmed(&outcome(&harness.chain, &[&second]).await, &second));
}

#[tokio::test]
async fn a_dropped_transaction_is_sent_again_unchanged() {
    let Some(harness) = ContractHarness::new().await else { return };
    harness.node.set_automine(false).await;
    let prepared = harness.send(id(1), ONE).await;
    harness.node.drop_transaction(&prepared.hash.to_string()).await;
    assert_eq!(outcome(&harness.chain, &[&prepared]).await, Outcome::Dropped);
    harness.chain.send(&prepared.raw).await.unwrap();
    harness.node.mine().await;
    assert!(is_confirmed(&outcome(&harness.chain, &[&prepared]).await, &prepared));
}

#[tokio::test]
async fn reverted_transactions_are_not_pending() {
    let Some(harness) = ContractHarness::new().await else { return };
    harness.node.set_automine(false).await;
    // The contract accepts the first one, and reverts the others.
    let [saved, first, second] =
        [harness.send(id(1), ONE).await, harness.send(id(1), ONE).await, harness.send(id(1), ONE).await];
    harness.node.mine().await;
    harness.chain.await_receipt(second.hash, SOON).await.unwrap().expect("a receipt");
    let reason = ChainError::AlreadySaved;
    let all = outcome(&harness.chain, &[&first, &second]).await;
    assert_eq!(all, Outcome::Reverted { count: 2, reason: reason.clone() });
    assert!(is_confirmed(&outcome(&harness.chain, &[&first, &saved]).await, &saved));
    // One more transaction, before it is sent and while it waits.
    let third = harness.chain.prepare(id(2), rate(ONE)).await.unwrap();
    assert_eq!(outcome(&harness.chain, &[&first, &third]).await, Outcome::Dropped);
    harness.chain.send(&third.raw).await.unwrap();
    assert_eq!(outcome(&harness.chain, &[&first, &third]).await, Outcome::Waiting);
    assert_eq!(outcome(&harness.chain, &[&first]).await, Outcome::Reverted { count: 1, reason });
}

#[tokio::test]
async fn a_restarted_node_keeps_blocks_and_loses_waiting_transactions() {
    let Some(mut harness) = ContractHarness::new().await else { return };
    let saved = harness.save(id(1), ONE).await;
    harness.node.set_automine(false).await;
    let prepared = harness.send(id(2), 2 * ONE).await;
    harness.node.stop().await;
    harness.node.start_again().await;
    assert_eq!(harness.chain.find(id(1)).await.unwrap(), saved.saved);
    assert_eq!(harness.chain.await_receipt(saved.hash, SOON).await, Ok(Some(saved)));
    assert_eq!(outcome(&harness.chain, &[&prepared]).await, Outcome::Dropped);
    harness.chain.send(&prepared.raw).await.unwrap();
    let receipt = harness.chain.await_receipt(prepared.hash, SOON).await.unwrap().expect("a receipt");
    assert_eq!(receipt.saved, harness.chain.find(id(2)).await.unwrap());
}

#[tokio::test]
async fn a_replacement_has_the_same_nonce_and_higher_fees() {
    let Some(harness) = ContractHarness::new().await else { return };
    let chain = &harness.chain;
    harness.node.set_automine(false).await;
    let first = harness.send(id(1), ONE).await;
    // A different rate with the same fees is refused: a replacement needs higher fees.
    let underpriced = chain.replace(id(1), rate(2 * ONE), first.nonce, Fees { max_fee: 0, priority: 0 }).await.unwrap();
    assert_eq!((underpriced.nonce, underpriced.fees), (first.nonce, first.fees));
    assert_eq!(chain.send(&underpriced.raw).await, Err(ChainError::Underpriced));
    let second = chain.replace(id(1), rate(ONE), first.nonce, first.fees).await.unwrap();
    assert_eq!(second.nonce, first.nonce);
    assert!(second.fees.max_fee * 8 >= first.fees.max_fee * 9 && second.fees.priority * 8 >= first.fees.priority * 9);
    chain.send(&second.raw).await.unwrap();
    assert_eq!(outcome(chain, &[&first, &second]).await, Outcome::Waiting);
    harness.node.mine().await;
    assert!(is_confirmed(&outcome(chain, &[&first, &second]).await, &second));
    // The replaced transaction can never be applied.
    assert_eq!(outcome(chain, &[&first]).await, Outcome::Superseded);
    assert_eq!(chain.send(&first.raw).await, Err(ChainError::NonceUsed));
}

#[tokio::test]
async fn an_id_survives_the_loss_of_its_nonce() {
    let Some(harness) = ContractHarness::new().await else { return };
    let prepared = harness.chain.prepare(id(1), rate(ONE)).await.unwrap();
    // A foreign transaction of the same key.
    let foreign = json!({ "from": OWNER, "to": OTHER, "value": "0x1", "nonce": format!("0x{:x}", prepared.nonce) });
    let hash = harness.node.call("eth_sendTransaction", json!([foreign])).await;
    harness.node.receipt(&hash).await;
    assert_eq!(outcome(&harness.chain, &[&prepared]).await, Outcome::Superseded);
    assert_eq!(harness.chain.send(&prepared.raw).await, Err(ChainError::NonceUsed));
    let replacement = harness.send(id(1), ONE).await;
    assert_eq!(replacement.nonce, prepared.nonce + 1);
    harness.chain.await_receipt(replacement.hash, SOON).await.unwrap().expect("a receipt");
    assert!(is_confirmed(&outcome(&harness.chain, &[&prepared, &replacement]).await, &replacement));
}
