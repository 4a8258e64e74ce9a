//! The history on a chain: it starts with the current rate, even after older submissions are saved late.

use jobs::interest_rates::chain::{Chain, ChainConfig, ScaledRate};
use runtime::config::EnvReader;
use serde_json::Value;
use uuid::Uuid;

use super::{onchain::ChainHarness, one_asset};
use crate::harness::anvil::{Node, OWNER_KEY};

impl ChainHarness {
    /// Saves a rate under an old id, as a submission does that is saved after newer ones.
    async fn save_late(&self, number: u128, rate: u128) {
        let pairs = [
            ("CHAIN_RPC_URL", &*self.node.url),
            ("CHAIN_PRIVATE_KEY", OWNER_KEY),
            ("CONTRACT_ADDRESS", &self.contract),
        ];
        let mut vars = EnvReader::from_pairs(&pairs);
        let config = ChainConfig::read(&mut vars);
        let chain = Chain::new(&vars.finish(config).unwrap().unwrap()).unwrap();
        let id = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + number);
        let units = ScaledRate::from_units(rate * 10_u128.pow(18)).unwrap();
        let prepared = chain.prepare(id, units).await.unwrap();
        chain.send(&prepared.raw).await.unwrap();
        let limit = std::time::Duration::from_secs(20);
        assert!(chain.await_receipt(prepared.hash, limit).await.unwrap().expect("a receipt").succeeded);
    }

    /// Asserts that the history starts with the current rate, and that its pages hold each rate once.
    async fn assert_history(&self, all: &[&str]) {
        let current = self.system.get_with_key("/interest_rate").await.json();
        let first: Value = self.system.get_with_key("/interest_rate/history?limit=5").await.json()[0].clone();
        assert_eq!(first, current);
        for limit in [1, 2, 3, 100] {
            assert_eq!(self.system.history(limit).await, all, "{limit} a page");
        }
    }
}

#[tokio::test]
async fn the_history_starts_with_the_current_rate() {
    let Some(node) = Node::start().await else { return };
    let url = node.url.clone();
    let harness = ChainHarness::start_with_node(node, url).await;
    harness.save_late(1, 10).await;
    harness.assert_history(&["10.0"]).await;
    harness.save_late(0, 11).await;
    harness.assert_history(&["10.0", "11.0"]).await;
    for rate in [1, 2] {
        assert_eq!(harness.system.submit(one_asset(rate)).await.status, 200);
    }
    harness.assert_history(&["2.0", "1.0", "11.0", "10.0"]).await;
    for number in 2..5 {
        harness.save_late(number, 10 + number).await;
    }
    harness.assert_history(&["2.0", "14.0", "13.0", "12.0", "1.0", "11.0", "10.0"]).await;
    assert_eq!(harness.system.submit(one_asset(3)).await.status, 200);
    harness.assert_history(&["3.0", "14.0", "13.0", "12.0", "2.0", "1.0", "11.0", "10.0"]).await;
}

#[tokio::test]
async fn history_pages_are_stable_while_rates_are_saved() {
    let Some(node) = Node::start().await else { return };
    let url = node.url.clone();
    let harness = ChainHarness::start_with_node(node, url).await;
    for rate in [1, 2] {
        assert_eq!(harness.system.submit(one_asset(rate)).await.status, 200);
    }
    harness.save_late(1, 10).await;
    let first = harness.system.get_with_key("/interest_rate/history?limit=2").await;
    let rates = |response: &crate::harness::http::HttpResponse| -> Vec<String> {
        let page = response.json();
        page.as_array().unwrap().iter().map(|rate| rate["interest_rate"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(rates(&first), ["2.0", "10.0"]);
    // A new current rate between two pages: the second page repeats no rate and skips none.
    assert_eq!(harness.system.submit(one_asset(3)).await.status, 200);
    harness.save_late(2, 11).await;
    let next = first.header("link").strip_prefix('<').unwrap().split_once('>').unwrap().0.to_owned();
    assert_eq!(rates(&harness.system.get_with_key(&next).await), ["1.0"]);
}
