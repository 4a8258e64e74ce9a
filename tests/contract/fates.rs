//! What can become of a transaction between its signing and its block.

use std::time::Duration;

use jobs::interest_rates::chain::{Chain, ChainError, Fees, Outcome, SentTransaction, SignedTransaction};
use serde_json::json;

use super::{ONE, SOON, Setup, id, rate};
use crate::harness::anvil::{OTHER, OWNER};

async fn outcome(chain: &Chain, prepared: &[&SignedTransaction]) -> Outcome {
    let sent: Vec<SentTransaction> =
        prepared.iter().map(|one| SentTransaction { nonce: one.nonce, hash: one.hash }).collect();
    chain.outcome(&sent).await.expect("an outcome")
}

fn confirmed(outcome: &Outcome, by: &SignedTransaction) -> bool {
    matches!(outcome, Outcome::Confirmed(receipt) if receipt.hash == by.hash && receipt.succeeded)
}

#[tokio::test]
async fn a_transaction_waits_is_known_and_is_confirmed() {
    let Some(Setup { node, chain, .. }) = Setup::new().await else { return };
    node.set_automine(false).await;
    let prepared = chain.prepare(id(1), rate(ONE)).await.unwrap();
    assert_eq!(outcome(&chain, &[&prepared]).await, Outcome::Dropped, "not sent so far");
    chain.send(&prepared.raw).await.unwrap();
    assert_eq!(outcome(&chain, &[&prepared]).await, Outcome::Waiting);
    assert_eq!(chain.send(&prepared.raw).await, Ok(()), "sent again, it is known");
    assert_eq!(chain.await_receipt(prepared.hash, Duration::from_millis(300)).await, Ok(None));
    node.mine().await;
    let receipt = chain.await_receipt(prepared.hash, SOON).await.unwrap().expect("a receipt");
    assert_eq!(outcome(&chain, &[&prepared]).await, Outcome::Confirmed(receipt));
    assert_eq!(chain.send(&prepared.raw).await, Err(ChainError::NonceUsed), "by itself");
    assert_eq!(outcome(&chain, &[]).await, Outcome::Superseded, "nothing was sent");
}

#[tokio::test]
async fn nonces_follow_what_waits_and_leave_no_hole() {
    let Some(setup) = Setup::new().await else { return };
    setup.save(id(1), ONE).await;
    setup.node.set_automine(false).await;
    let first = setup.send(id(2), ONE).await;
    // Given up before it has a nonce: nothing is used up.
    setup.chain.prepare(id(1), rate(ONE)).await.expect_err("it is known");
    let second = setup.send(id(3), ONE).await;
    assert_eq!(second.nonce, first.nonce + 1);
    setup.node.mine().await;
    assert!(confirmed(&outcome(&setup.chain, &[&first]).await, &first));
    assert!(confirmed(&outcome(&setup.chain, &[&second]).await, &second));
}

#[tokio::test]
async fn what_was_dropped_is_sent_again_as_it_was() {
    let Some(setup) = Setup::new().await else { return };
    setup.node.set_automine(false).await;
    let prepared = setup.send(id(1), ONE).await;
    setup.node.drop_transaction(&prepared.hash.to_string()).await;
    assert_eq!(outcome(&setup.chain, &[&prepared]).await, Outcome::Dropped);
    setup.chain.send(&prepared.raw).await.unwrap();
    setup.node.mine().await;
    assert!(confirmed(&outcome(&setup.chain, &[&prepared]).await, &prepared));
}

#[tokio::test]
async fn a_node_that_starts_again_has_its_blocks_and_not_what_waited() {
    let Some(mut setup) = Setup::new().await else { return };
    let saved = setup.save(id(1), ONE).await;
    setup.node.set_automine(false).await;
    let prepared = setup.send(id(2), 2 * ONE).await;
    setup.node.stop().await;
    setup.node.start_again().await;
    assert_eq!(setup.chain.find(id(1)).await.unwrap(), saved.saved);
    assert_eq!(setup.chain.await_receipt(saved.hash, SOON).await, Ok(Some(saved)));
    assert_eq!(outcome(&setup.chain, &[&prepared]).await, Outcome::Dropped);
    setup.chain.send(&prepared.raw).await.unwrap();
    let receipt = setup.chain.await_receipt(prepared.hash, SOON).await.unwrap().expect("a receipt");
    assert_eq!(receipt.saved, setup.chain.find(id(2)).await.unwrap());
}

#[tokio::test]
async fn a_replacement_has_the_same_nonce_and_pays_more() {
    let Some(setup) = Setup::new().await else { return };
    let chain = &setup.chain;
    setup.node.set_automine(false).await;
    let first = setup.send(id(1), ONE).await;
    // Another content for the same fees is refused, and so the fees decide.
    let cheap = chain.replace(id(1), rate(2 * ONE), first.nonce, Fees { max_fee: 0, priority: 0 }).await.unwrap();
    assert_eq!((cheap.nonce, cheap.fees), (first.nonce, first.fees));
    assert_eq!(chain.send(&cheap.raw).await, Err(ChainError::Underpriced));
    let second = chain.replace(id(1), rate(ONE), first.nonce, first.fees).await.unwrap();
    assert_eq!(second.nonce, first.nonce);
    assert!(second.fees.max_fee * 8 >= first.fees.max_fee * 9 && second.fees.priority * 8 >= first.fees.priority * 9);
    chain.send(&second.raw).await.unwrap();
    assert_eq!(outcome(chain, &[&first, &second]).await, Outcome::Waiting);
    setup.node.mine().await;
    assert!(confirmed(&outcome(chain, &[&first, &second]).await, &second));
    // The one that was replaced can never be applied.
    assert_eq!(outcome(chain, &[&first]).await, Outcome::Superseded);
    assert_eq!(chain.send(&first.raw).await, Err(ChainError::NonceUsed));
}

#[tokio::test]
async fn a_nonce_that_another_transaction_used_is_lost_and_the_id_is_not() {
    let Some(setup) = Setup::new().await else { return };
    let prepared = setup.chain.prepare(id(1), rate(ONE)).await.unwrap();
    // From the same key, and not ours.
    let foreign = json!({ "from": OWNER, "to": OTHER, "value": "0x1", "nonce": format!("0x{:x}", prepared.nonce) });
    let hash = setup.node.call("eth_sendTransaction", json!([foreign])).await;
    setup.node.receipt(&hash).await;
    assert_eq!(outcome(&setup.chain, &[&prepared]).await, Outcome::Superseded);
    assert_eq!(setup.chain.send(&prepared.raw).await, Err(ChainError::NonceUsed));
    let anew = setup.send(id(1), ONE).await;
    assert_eq!(anew.nonce, prepared.nonce + 1);
    setup.chain.await_receipt(anew.hash, SOON).await.unwrap().expect("a receipt");
    assert!(confirmed(&outcome(&setup.chain, &[&prepared, &anew]).await, &anew));
}
