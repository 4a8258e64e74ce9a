//! What the contract keeps and refuses, and how it is read.

use jobs::interest_rates::chain::{ChainError, Outcome, Record, SentTransaction};
use serde_json::json;
use time::OffsetDateTime;

use super::{ONE, Setup, chain_of, id, rate, word, words};
use crate::harness::anvil::{OTHER, OTHER_KEY, OWNER};

#[tokio::test]
async fn a_saving_is_found_and_announced_with_all_its_fields() {
    let Some(setup) = Setup::new().await else { return };
    assert_eq!(setup.chain.current().await, Ok(None));
    assert_eq!(setup.chain.find(id(7)).await, Ok(None));
    setup.save(id(6), ONE).await;
    let receipt = setup.save(id(7), 55 * ONE + 1).await;

    let record = setup.chain.find(id(7)).await.unwrap().expect("a record");
    assert_eq!((record.index, record.id, record.rate), (1, id(7), rate(55 * ONE + 1)));
    assert_eq!(record.rate.to_string(), "55.000000000000000001");
    assert_eq!(receipt.saved.as_ref(), Some(&record), "the event says the same");
    let raw = setup.node.receipt(&json!(receipt.hash.to_string())).await;
    let block = setup.node.call("eth_getBlockByNumber", json!([raw["blockNumber"], false])).await;
    let time = u128::from_str_radix(&block["timestamp"].as_str().unwrap()[2..], 16).unwrap();
    assert_eq!(record.saved_at, OffsetDateTime::from_unix_timestamp(time as i64).unwrap());

    let event = setup.keccak("Saved(uint256,uint128,uint256,uint64)").await;
    let hash = |number| format!("0x{}", word(number));
    assert_eq!(raw["logs"][0]["topics"], json!([event, hash(1), hash(id(7).as_u128())]));
    assert_eq!(words(&raw["logs"][0]["data"]), [word(55 * ONE + 1), word(time)]);

    assert_eq!(setup.view("count()", &[]).await, [word(2)]);
    assert_eq!(setup.view("record(uint256)", &[1]).await, [word(id(7).as_u128()), word(time), word(55 * ONE + 1)]);
    let owner = setup.view("owner()", &[]).await;
    assert!(owner[0].ends_with(&OWNER[2..].to_lowercase()), "{owner:?}");
}

#[tokio::test]
async fn an_id_is_saved_once_whatever_is_sent() {
    let Some(setup) = Setup::new().await else { return };
    // Both fit while neither is in a block.
    setup.node.set_automine(false).await;
    let first = setup.send(id(1), ONE).await;
    let second = setup.send(id(1), 2 * ONE).await;
    setup.node.mine().await;
    let outcome = async |one: &jobs::interest_rates::chain::SignedTransaction| {
        setup.chain.outcome(&[SentTransaction { nonce: one.nonce, hash: one.hash }]).await.expect("an outcome")
    };
    assert!(matches!(outcome(&first).await, Outcome::Confirmed(receipt) if receipt.saved.is_some()));
    assert_eq!(outcome(&second).await, Outcome::Reverted(ChainError::AlreadySaved));
    // Of one submission with both, the one that was applied counts.
    let both = [&second, &first].map(|one| SentTransaction { nonce: one.nonce, hash: one.hash });
    assert!(matches!(setup.chain.outcome(&both).await, Ok(Outcome::Confirmed(receipt)) if receipt.hash == first.hash));
    assert_eq!(setup.chain.prepare(id(1), rate(3 * ONE)).await, Err(ChainError::AlreadySaved));
    assert_eq!(setup.chain.find(id(1)).await.unwrap().expect("a record").rate, rate(ONE));
    assert_eq!(setup.view("count()", &[]).await, [word(1)]);
}

#[tokio::test]
async fn only_the_owner_saves() {
    let Some(setup) = Setup::new().await else { return };
    let other = chain_of(&setup.node.url, OTHER_KEY, &setup.contract);
    assert!(matches!(other.ready().await, Err(ChainError::Misconfigured(why)) if why.contains("owner")));
    let refused = other.prepare(id(2), rate(ONE)).await;
    assert!(matches!(refused, Err(ChainError::Misconfigured(why)) if why.contains("owner")));
    // The contract itself, not only the estimate: the same call in a block.
    let receipt = setup.save(id(1), ONE).await;
    let sent = setup.node.call("eth_getTransactionByHash", json!([receipt.hash.to_string()])).await;
    let input = sent["input"].as_str().unwrap().replace(&word(id(1).as_u128()), &word(id(2).as_u128()));
    let call = json!({ "from": OTHER, "to": setup.contract, "data": input, "gas": "0x30d40" });
    let hash = setup.node.call("eth_sendTransaction", json!([call])).await;
    let receipt = setup.node.receipt(&hash).await;
    assert_eq!(receipt["status"], "0x0");
    assert_eq!(setup.chain.find(id(2)).await, Ok(None));
    // They may all read.
    assert_eq!(other.current().await.unwrap().expect("a record").id, id(1));
}

#[tokio::test]
async fn the_current_rate_is_that_of_the_highest_id_in_whatever_order() {
    let Some(setup) = Setup::new().await else { return };
    for (number, current) in [(5, 5), (3, 5), (9, 9), (1, 9), (8, 9), (10, 10)] {
        setup.save(id(number), number * ONE).await;
        let found = setup.chain.current().await.unwrap().expect("a record");
        assert_eq!((found.id, found.rate), (id(current), rate(current * ONE)), "after {number}");
        assert_eq!(Some(found), setup.chain.find(id(current)).await.unwrap());
    }
}

#[tokio::test]
async fn ids_and_rates_reach_from_end_to_end() {
    let Some(setup) = Setup::new().await else { return };
    // The lowest id of all is one as well.
    let ends = [(uuid::Uuid::nil(), 0), (uuid::Uuid::max(), 10_u128.pow(38)), (id(0), 1)];
    for (id, units) in ends {
        setup.save(id, units).await;
        assert_eq!(setup.chain.find(id).await.unwrap().expect("a record").rate, rate(units), "{id}");
        setup.chain.prepare(id, rate(units)).await.expect_err("it is known");
    }
    assert_eq!(setup.chain.current().await.unwrap().expect("a record").id, uuid::Uuid::max());
}

#[tokio::test]
async fn pages_are_newest_first_and_bounded() {
    const SAVED: u128 = 203;
    let Some(setup) = Setup::new().await else { return };
    assert_eq!(setup.chain.page(None, 10).await, Ok(vec![]));
    // One block for all.
    setup.node.set_automine(false).await;
    for number in 0..SAVED {
        setup.send(id(SAVED - number), number).await;
    }
    while setup.view("count()", &[]).await != [word(SAVED)] {
        setup.node.mine().await;
    }
    let indexes = |page: Vec<Record>| page.iter().map(|record| record.index).collect::<Vec<_>>();
    let page = setup.chain.page(None, 3).await.unwrap();
    assert_eq!(page[1].id, id(2));
    assert_eq!(page[1].rate, rate(201));
    assert_eq!(indexes(page), [202, 201, 200]);
    assert_eq!(indexes(setup.chain.page(Some(200), 2).await.unwrap()), [199, 198]);
    assert_eq!(indexes(setup.chain.page(Some(2), 100).await.unwrap()), [1, 0]);
    assert_eq!(indexes(setup.chain.page(Some(0), 100).await.unwrap()), [0; 0]);
    assert_eq!(indexes(setup.chain.page(Some(u64::MAX), 1).await.unwrap()), [202]);
    assert_eq!(indexes(setup.chain.page(None, 0).await.unwrap()), [0; 0]);
    assert_eq!(indexes(setup.chain.page(None, u32::MAX).await.unwrap()), (3..203).rev().collect::<Vec<_>>());
}
