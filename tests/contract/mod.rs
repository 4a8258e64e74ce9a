//! The smart contract and our client of it, on a node of each test's own.

mod build;
mod deploying;
mod fates;
mod records;
mod trouble;

use jobs::{
    config::EnvReader,
    interest_rates::chain::{self, Account, Chain, ChainConfig, ScaledRate, SignedTransaction},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::anvil::{Node, OWNER_KEY};

/// One whole, in units.
const ONE: u128 = 10_u128.pow(18);

/// A node with a contract on it.
struct Setup {
    node: Node,
    contract: String,
    chain: Chain,
}

impl Setup {
    async fn new() -> Option<Self> {
        let node = Node::start().await?;
        let mut vars = EnvReader::from_pairs(&[("CHAIN_RPC_URL", &node.url), ("CHAIN_PRIVATE_KEY", OWNER_KEY)]);
        let account = Account::read(&mut vars);
        let account = vars.finish(account).unwrap().unwrap();
        let contract = chain::deploy(&account).await.expect("a contract");
        let chain = chain_of(&node.url, OWNER_KEY, &contract);
        Some(Self { node, contract, chain })
    }

    /// Prepares and sends a saving.
    async fn send(&self, id: Uuid, units: u128) -> SignedTransaction {
        let prepared = self.chain.prepare(id, rate(units)).await.expect("a transaction");
        self.chain.send(&prepared.raw).await.expect("sent");
        prepared
    }

    /// Saves, and waits for the block.
    async fn save(&self, id: Uuid, units: u128) -> chain::Receipt {
        let prepared = self.send(id, units).await;
        let receipt = self.chain.await_receipt(prepared.hash, SOON).await.expect("an answer").expect("a receipt");
        assert!(receipt.succeeded);
        receipt
    }

    /// Calls a view without our client, such as `count()`: 32 bytes for each argument, and for each part of the answer.
    async fn view(&self, signature: &str, arguments: &[u128]) -> Vec<String> {
        let selector = self.keccak(signature).await[..10].to_owned();
        let data = arguments.iter().fold(selector, |data, argument| format!("{data}{argument:064x}"));
        let answer = self.node.call("eth_call", json!([{ "to": self.contract, "data": data }, "latest"])).await;
        words(&answer)
    }

    /// The hash by which the ABI knows functions and events.
    async fn keccak(&self, text: &str) -> String {
        let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.node.call("web3_sha3", json!([format!("0x{hex}")])).await.as_str().expect("a hash").to_owned()
    }
}

const SOON: std::time::Duration = std::time::Duration::from_secs(20);

/// A client as the variables make it.
fn chain_of(url: &str, key: &str, contract: &str) -> Chain {
    // It installs the TLS that the client is made with.
    drop(crate::harness::process::http_client());
    let pairs = [("CHAIN_RPC_URL", url), ("CHAIN_PRIVATE_KEY", key), ("CONTRACT_ADDRESS", contract)];
    let mut vars = EnvReader::from_pairs(&pairs);
    let config = ChainConfig::read(&mut vars);
    let config = vars.finish(config).unwrap_or_else(|problems| panic!("{problems}"));
    Chain::new(&config.expect("a configuration")).expect("a client")
}

/// Ids in the order of their numbers.
fn id(number: u128) -> Uuid {
    Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + number)
}

fn rate(units: u128) -> ScaledRate {
    ScaledRate::from_units(units).expect("a rate")
}

/// The parts of an answer of the ABI.
fn words(answer: &Value) -> Vec<String> {
    let digits = answer.as_str().and_then(|text| text.strip_prefix("0x")).expect("hexadecimal digits");
    digits.as_bytes().chunks(64).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

fn word(number: u128) -> String {
    format!("{number:064x}")
}
