//! The history on a chain begins with the current rate, whatever was saved late.

use jobs::{
    config::EnvReader,
    interest_rates::chain::{Chain, ChainConfig, ScaledRate},
};
use serde_json::Value;
use uuid::Uuid;

use super::{onchain::Chained, one};
use crate::harness::anvil::{Node, OWNER_KEY};

impl Chained {
    /// Saves a rate under an id of long ago: what a submission does that is saved after newer ones.
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

    /// The first entry of the history is the current rate, and all pages together are all rates, each once.
    async fn assert_agree(&self, all: &[&str]) {
        let current = self.system.get("/interest_rate").await.json();
        let first: Value = self.system.get("/interest_rate/history?limit=5").await.json()[0].clone();
        assert_eq!(first, current);
        for limit in [1, 2, 3, 100] {
            assert_eq!(self.system.history(limit).await, all, "{limit} a page");
        }
    }
}

#[tokio::test]
async fn the_history_begins_with_the_current_rate() {
    let Some(node) = Node::start().await else { return };
    let url = node.url.clone();
    let chained = Chained::over(node, url).await;
    chained.save_late(1, 10).await;
    chained.assert_agree(&["10.0"]).await;
    chained.save_late(0, 11).await;
    chained.assert_agree(&["10.0", "11.0"]).await;
    for rate in [1, 2] {
        assert_eq!(chained.system.submit(one(rate)).await.status, 200);
    }
    chained.assert_agree(&["2.0", "1.0", "11.0", "10.0"]).await;
    for number in 2..5 {
        chained.save_late(number, 10 + number).await;
    }
    chained.assert_agree(&["2.0", "14.0", "13.0", "12.0", "1.0", "11.0", "10.0"]).await;
    assert_eq!(chained.system.submit(one(3)).await.status, 200);
    chained.assert_agree(&["3.0", "14.0", "13.0", "12.0", "2.0", "1.0", "11.0", "10.0"]).await;
}

#[tokio::test]
async fn pages_lose_and_repeat_nothing_while_rates_are_saved() {
    let Some(node) = Node::start().await else { return };
    let url = node.url.clone();
    let chained = Chained::over(node, url).await;
    for rate in [1, 2] {
        assert_eq!(chained.system.submit(one(rate)).await.status, 200);
    }
    chained.save_late(1, 10).await;
    let first = chained.system.get("/interest_rate/history?limit=2").await;
    let shown = |answer: &crate::harness::http::HttpResponse| -> Vec<String> {
        let rates = answer.json();
        rates.as_array().unwrap().iter().map(|one| one["interest_rate"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(shown(&first), ["2.0", "10.0"]);
    // Another becomes the current one: the one that was shown is not shown again, and none is left out.
    assert_eq!(chained.system.submit(one(3)).await.status, 200);
    chained.save_late(2, 11).await;
    let next = first.header("link").strip_prefix('<').unwrap().split_once('>').unwrap().0.to_owned();
    assert_eq!(shown(&chained.system.get(&next).await), ["1.0"]);
}
