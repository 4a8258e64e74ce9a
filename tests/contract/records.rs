//! The records of the contract: fields, access, order and pages.

use jobs::interest_rates::chain::{ChainError, Outcome, Record, SentTransaction};
use serde_json::json;
use time::OffsetDateTime;

use super::{ContractHarness, ONE, chain_of, hex_word, id, rate, split_words};
use crate::harness::anvil::{OTHER, OTHER_KEY, OWNER};

#[tokio::test]
async fn a_saved_rate_is_found_and_emitted_with_all_fields() {
    let Some(harness) = ContractHarness::new().await else { return };
    assert_eq!(harness.chain.current().await, Ok(None));
    assert_eq!(harness.chain.find(id(7)).await, Ok(None));
    harness.save(id(6), ONE).await;
    let receipt = harness.save(id(7), 55 * ONE + 1).await;

    let record = harness.chain.find(id(7)).await.unwrap().expect("a record");
    assert_eq!((record.index, record.id, record.rate), (1, id(7), rate(55 * ONE + 1)));
    assert_eq!(record.rate.to_string(), "55.000000000000000001");
    assert_eq!(receipt.saved.as_ref(), Some(&record), "the event has the same fields");
    let raw = harness.node.receipt(&json!(receipt.hash.to_string())).await;
    let block = harness.node.call("eth_getBlockByNumber", json!([raw["blockNumber"], false])).await;
    let time = u128::from_str_radix(&block["timestamp"].as_str().unwrap()[2..], 16).unwrap();
    assert_eq!(record.saved_at, OffsetDateTime::from_unix_timestamp(time as i64).unwrap());

    let event = harness.keccak("Saved(uint256,uint128,uint256,uint64)").await;
    let hash = |number| format!("0x{}", hex_word(number));
    assert_eq!(raw["logs"][0]["topics"], json!([event, hash(1), hash(id(7).as_u128())]));
    assert_eq!(split_words(&raw["logs"][0]["data"]), [hex_word(55 * ONE + 1), hex_word(time)]);

    assert_eq!(harness.view("count()", &[]).await, [hex_word(2)]);
    assert_eq!(
        harness.view("record(uint256)", &[1]).await,
        [hex_word(id(7).as_u128()), hex_word(time), hex_word(55 * ONE + 1)]
    );
    let owner = harness.view("owner()", &[]).await;
    assert!(owner[0].ends_with(&OWNER[2..].to_lowercase()), "{owner:?}");
}

#[tokio::test]
async fn an_id_is_saved_once_for_any_transactions() {
    let Some(harness) = ContractHarness::new().await else { return };
    // The estimates of both succeed while neither is in a block.
    harness.node.set_automine(false).await;
    let first = harness.send(id(1), ONE).await;
    let second = harness.send(id(1), 2 * ONE).await;
    harness.node.mine().await;
    let outcome = async |one: &jobs::interest_rates::chain::SignedTransaction| {
        harness.chain.outcome(&[SentTransaction { nonce: one.nonce, hash: one.hash }]).await.expect("an outcome")
    };
    assert!(matches!(outcome(&first).await, Outcome::Confirmed(receipt) if receipt.saved.is_some()));
    assert_eq!(outcome(&second).await, Outcome::Reverted { count: 1, reason: ChainError::AlreadySaved });
    // For a submission with both transactions, the confirmed one counts.
    let both = [&second, &first].map(|one| SentTransaction { nonce: one.nonce, hash: one.hash });
    assert!(
        matches!(harness.chain.outcome(&both).await, Ok(Outcome::Confirmed(receipt)) if receipt.hash == first.hash)
    );
    assert_eq!(harness.chain.prepare(id(1), rate(3 * ONE)).await, Err(ChainError::AlreadySaved));
    assert_eq!(harness.chain.find(id(1)).await.unwrap().expect("a record").rate, rate(ONE));
    assert_eq!(harness.view("count()", &[]).await, [hex_word(1)]);
}

#[tokio::test]
async fn only_the_owner_saves_rates() {
    let Some(harness) = ContractHarness::new().await else { return };
    let other = chain_of(&harness.node.url, OTHER_KEY, &harness.contract);
    assert!(matches!(other.ready().await, Err(ChainError::Misconfigured(reason)) if reason.contains("owner")));
    let refused = other.prepare(id(2), rate(ONE)).await;
    assert!(matches!(refused, Err(ChainError::Misconfigured(reason)) if reason.contains("owner")));
    // The contract itself refuses the call in a block, not only the estimate.
    let receipt = harness.save(id(1), ONE).await;
    let sent = harness.node.call("eth_getTransactionByHash", json!([receipt.hash.to_string()])).await;
    let input = sent["input"].as_str().unwrap().replace(&hex_word(id(1).as_u128()), &hex_word(id(2).as_u128()));
    let call = json!({ "from": OTHER, "to": harness.contract, "data": input, "gas": "0x30d40" });
    let hash = harness.node.call("eth_sendTransaction", json!([call])).await;
    let receipt = harness.node.receipt(&hash).await;
    assert_eq!(receipt["status"], "0x0");
    assert_eq!(harness.chain.find(id(2)).await, Ok(None));
    // Every account may read.
    assert_eq!(other.current().await.unwrap().expect("a record").id, id(1));
}

#[tokio::test]
async fn the_current_rate_has_the_highest_id_in_any_order() {
    let Some(harness) = ContractHarness::new().await else { return };
    for (number, current) in [(5, 5), (3, 5), (9, 9), (1, 9), (8, 9), (10, 10)] {
        harness.save(id(number), number * ONE).await;
        let found = harness.chain.current().await.unwrap().expect("a record");
        assert_eq!((found.id, found.rate), (id(current), rate(current * ONE)), "after {number}");
        assert_eq!(Some(found), harness.chain.find(id(current)).await.unwrap());
    }
}

#[tokio::test]
async fn the_lowest_and_highest_ids_and_rates_are_saved() {
    let Some(harness) = ContractHarness::new().await else { return };
    // The nil UUID is a valid id.
    let ends = [(uuid::Uuid::nil(), 0), (uuid::Uuid::max(), 10_u128.pow(38)), (id(0), 1)];
    for (id, units) in ends {
        harness.save(id, units).await;
        assert_eq!(harness.chain.find(id).await.unwrap().expect("a record").rate, rate(units), "{id}");
        harness.chain.prepare(id, rate(units)).await.expect_err("the id is saved");
    }
    assert_eq!(harness.chain.current().await.unwrap().expect("a record").id, uuid::Uuid::max());
}

#[tokio::test]
async fn record_pages_are_newest_first_and_bounded() {
    const SAVED: u128 = 203;
    let Some(harness) = ContractHarness::new().await else { return };
    assert_eq!(harness.chain.page(None, 10).await, Ok(vec![]));
    // All transactions wait for one block.
    harness.node.set_automine(false).await;
    for number in 0..SAVED {
        harness.send(id(SAVED - number), number).await;
    }
    while harness.view("count()", &[]).await != [hex_word(SAVED)] {
        harness.node.mine().await;
    }
    let indexes = |page: Vec<Record>| page.iter().map(|record| record.index).collect::<Vec<_>>();
    let page = harness.chain.page(None, 3).await.unwrap();
    assert_eq!(page[1].id, id(2));
    assert_eq!(page[1].rate, rate(201));
    assert_eq!(indexes(page), [202, 201, 200]);
    assert_eq!(indexes(harness.chain.page(Some(200), 2).await.unwrap()), [199, 198]);
    assert_eq!(indexes(harness.chain.page(Some(2), 100).await.unwrap()), [1, 0]);
    assert_eq!(indexes(harness.chain.page(Some(0), 100).await.unwrap()), [0; 0]);
    assert_eq!(indexes(harness.chain.page(Some(u64::MAX), 1).await.unwrap()), [202]);
    assert_eq!(indexes(harness.chain.page(None, 0).await.unwrap()), [0; 0]);
    assert_eq!(indexes(harness.chain.page(None, u32::MAX).await.unwrap()), (3..203).rev().collect::<Vec<_>>());
}
