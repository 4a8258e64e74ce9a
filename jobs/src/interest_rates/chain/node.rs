//! What a node is asked, in its own words.

use alloy::primitives::{Address, B256, Bytes, TxKind, U64, U128, U256, hex};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::{
    contract::Record,
    error::ChainError,
    rpc::{Fault, Rpc},
    transaction::{Fees, Hash, Pricing, Receipt},
};
use crate::error::Error;

/// A node of Ethereum's, or of a chain like it.
#[derive(Clone)]
pub struct Node {
    pub rpc: Rpc,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Block {
    base_fee_per_gas: Option<U128>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawReceipt {
    status: Option<U64>,
    block_number: Option<U64>,
    contract_address: Option<Address>,
    #[serde(default)]
    logs: Vec<Log>,
}

#[derive(Deserialize)]
struct Log {
    topics: Vec<B256>,
    data: Bytes,
}

/// What is read of a transaction that the node knows.
#[derive(Deserialize)]
pub struct Known {
    pub from: Address,
    pub to: Option<Address>,
    pub input: Bytes,
}

impl Node {
    /// Without any I/O.
    pub fn new(url: &Url) -> Result<Self, Error> {
        Ok(Self { rpc: Rpc::new(url)? })
    }

    /// The chain's number, which is signed with everything: nothing can be replayed on another one.
    pub async fn chain_id(&self) -> Result<u64, ChainError> {
        self.number("eth_chainId", json!([])).await
    }

    /// The nonce behind everything of this account's that the node has, mined or not.
    pub async fn next_nonce(&self, account: Address) -> Result<u64, ChainError> {
        self.number("eth_getTransactionCount", json!([account, "pending"])).await
    }

    /// How many nonces of this account's are in blocks.
    pub async fn used_nonces(&self, account: Address) -> Result<u64, ChainError> {
        self.number("eth_getTransactionCount", json!([account, "latest"])).await
    }

    /// The gas that this takes now, and a fifth more: what another transaction changes until then must not make it fail.
    /// On the latest block, not on what is pending, which is some nodes' default: a saving that waits is no reason to
    /// refuse the one that replaces it.
    pub async fn gas(&self, from: Address, to: TxKind, input: &[u8]) -> Result<u64, ChainError> {
        let call = json!({ "from": from, "to": to.to(), "data": hex::encode_prefixed(input) });
        let gas = self.number("eth_estimateGas", json!([without_null(call), "latest"])).await?;
        Ok(gas.saturating_add(gas / 5))
    }

    /// What to pay, good for a base fee that doubles. A chain without base fees, and a node that advises no priority fee,
    /// are asked for a price of the gas instead.
    pub async fn pricing(&self) -> Result<Pricing, ChainError> {
        let (block, priority) = tokio::join!(
            self.rpc.call::<Block>("eth_getBlockByNumber", json!(["latest", false])),
            self.rpc.call::<Option<U128>>("eth_maxPriorityFeePerGas", json!([])),
        );
        let Some(base) = block?.base_fee_per_gas.map(|base| base.to::<u128>()) else {
            let price = self.gas_price().await?;
            return Ok(Pricing { fees: Fees { max_fee: price, priority: price }, has_base_fee: false });
        };
        let priority = match priority {
            Ok(Some(priority)) => priority.to(),
            Err(Fault::Transport(error @ ChainError::Unreachable(_))) => return Err(error),
            // Nodes refuse a method that they do not know with different codes, and some proxies with a status.
            Ok(None) | Err(_) => self.gas_price().await?.saturating_sub(base),
        };
        let priority = priority.max(1);
        let fees = Fees { max_fee: base.saturating_mul(2).saturating_add(priority), priority };
        Ok(Pricing { fees, has_base_fee: true })
    }

    /// What a unit of gas costs in all.
    async fn gas_price(&self) -> Result<u128, ChainError> {
        let price: U128 = self.rpc.call("eth_gasPrice", json!([])).await?;
        Ok(price.to())
    }

    /// What an account has, in wei.
    pub async fn balance(&self, account: Address) -> Result<U256, ChainError> {
        Ok(self.rpc.call("eth_getBalance", json!([account, "latest"])).await?)
    }

    /// Whether a contract is there.
    pub async fn has_code(&self, address: Address) -> Result<bool, ChainError> {
        let code: Bytes = self.rpc.call("eth_getCode", json!([address, "latest"])).await?;
        Ok(!code.is_empty())
    }

    /// Hands over a signed transaction; one that it has already is fine.
    pub async fn send(&self, raw: &[u8]) -> Result<(), ChainError> {
        let sent: Result<Value, Fault> =
            self.rpc.call("eth_sendRawTransaction", json!([hex::encode_prefixed(raw)])).await;
        match sent {
            Ok(_hash) => Ok(()),
            Err(Fault::Answer(refusal)) => refusal.of_sending(),
            Err(Fault::Transport(error)) => Err(error),
        }
    }

    /// The receipt of a transaction that is in a block, and the address of the contract that it made.
    pub async fn receipt(&self, hash: Hash) -> Result<Option<(Receipt, Option<Address>)>, ChainError> {
        let raw: Option<RawReceipt> = self.rpc.call("eth_getTransactionReceipt", json!([hash.to_string()])).await?;
        Ok(raw.and_then(|raw| {
            let block = raw.block_number?.to();
            let saved = raw.logs.iter().find_map(|log| Record::of_log(&log.topics, &log.data));
            let succeeded = raw.status.is_some_and(|status| status.to::<u64>() == 1);
            Some((Receipt { hash, block, succeeded, saved }, raw.contract_address))
        }))
    }

    /// A transaction, if the node has it, in a block or not.
    pub async fn transaction(&self, hash: Hash) -> Result<Option<Known>, ChainError> {
        Ok(self.rpc.call("eth_getTransactionByHash", json!([hash.to_string()])).await?)
    }

    /// Why a transaction that is in this block was refused: asked again on the state behind that block.
    pub async fn reason(&self, transaction: &Known, block: u64) -> Result<ChainError, ChainError> {
        let input = hex::encode_prefixed(&transaction.input);
        let call = json!({ "from": transaction.from, "to": transaction.to, "data": input });
        let block = format!("0x{block:x}");
        let again: Result<Bytes, Fault> = self.rpc.call("eth_call", json!([without_null(call), block])).await;
        match again {
            Err(Fault::Answer(refusal)) => Ok(refusal.into()),
            Err(Fault::Transport(error)) => Err(error),
            Ok(_) => {
                Ok(ChainError::Refused("the transaction failed, for want of gas or on a state that has passed".into()))
            }
        }
    }

    async fn number(&self, method: &str, params: Value) -> Result<u64, ChainError> {
        let number: U64 = self.rpc.call(method, params).await?;
        Ok(number.to())
    }
}

/// A contract that is yet to be made has no address; some nodes refuse a `null` there.
fn without_null(mut call: Value) -> Value {
    if let Some(fields) = call.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    call
}
