//! Typed JSON-RPC calls of an Ethereum node.

use alloy::primitives::{Address, B256, Bytes, TxKind, U64, U128, U256, hex};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    contract::Record,
    error::ChainError,
    rpc::{Node, RpcError},
    transaction::{Fees, Hash, Pricing, Receipt},
};

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

/// The fields that are read of a transaction on the node.
#[derive(Deserialize)]
pub(super) struct NodeTransaction {
    pub from: Address,
    pub to: Option<Address>,
    pub input: Bytes,
}

impl Node {
    /// The id of the chain. Every signature covers it, so that a transaction cannot be replayed on another chain.
    pub(super) async fn chain_id(&self) -> Result<u64, ChainError> {
        self.number("eth_chainId", json!([])).await
    }

    /// The next nonce of an account, after all its transactions that the node has, pending ones included.
    pub(super) async fn next_nonce(&self, account: Address) -> Result<u64, ChainError> {
        self.number("eth_getTransactionCount", json!([account, "pending"])).await
    }

    /// The number of nonces of an account that blocks include.
    pub(super) async fn used_nonces(&self, account: Address) -> Result<u64, ChainError> {
        self.number("eth_getTransactionCount", json!([account, "latest"])).await
    }

    /// Estimates the gas of a call on the latest block, and adds a fifth: other transactions may raise the need
    /// meanwhile. Some nodes estimate on the pending block by default. There a waiting transaction would make its own
    /// replacement fail.
    pub(super) async fn gas(&self, from: Address, to: TxKind, input: &[u8]) -> Result<u64, ChainError> {
        let call = json!({ "from": from, "to": to.to(), "data": hex::encode_prefixed(input) });
        let gas = self.number("eth_estimateGas", json!([without_null(call), "latest"])).await?;
        Ok(gas.saturating_add(gas / 5))
    }

    /// The current fees, sufficient even if the base fee doubles. The gas price is used instead if the chain has no
    /// base fee, or if the node suggests no priority fee.
    pub(super) async fn pricing(&self) -> Result<Pricing, ChainError> {
        let (block, priority) = tokio::join!(
            self.call::<Block>("eth_getBlockByNumber", json!(["latest", false])),
            self.call::<Option<U128>>("eth_maxPriorityFeePerGas", json!([])),
        );
        let Some(base) = block?.base_fee_per_gas.map(|base| base.to::<u128>()) else {
            let price = self.gas_price().await?;
            return Ok(Pricing { fees: Fees { max_fee: price, priority: price }, has_base_fee: false });
        };
        let priority = match priority {
            Ok(Some(priority)) => priority.to(),
            Err(RpcError::Transport(error @ ChainError::Unreachable(_))) => return Err(error),
            // For an unknown method nodes return different error codes, and some proxies an HTTP status.
            Ok(None) | Err(_) => self.gas_price().await?.saturating_sub(base),
        };
        let priority = priority.max(1);
        let fees = Fees { max_fee: base.saturating_mul(2).saturating_add(priority), priority };
        Ok(Pricing { fees, has_base_fee: true })
    }

    /// The price of a unit of gas, in wei.
    async fn gas_price(&self) -> Result<u128, ChainError> {
        let price: U128 = self.call("eth_gasPrice", json!([])).await?;
        Ok(price.to())
    }

    /// The balance of an account, in wei.
    pub(super) async fn balance(&self, account: Address) -> Result<U256, ChainError> {
        Ok(self.call("eth_getBalance", json!([account, "latest"])).await?)
    }

    /// Whether the address has a contract.
    pub(super) async fn has_code(&self, address: Address) -> Result<bool, ChainError> {
        let code: Bytes = self.call("eth_getCode", json!([address, "latest"])).await?;
        Ok(!code.is_empty())
    }

    /// Sends a signed transaction. Succeeds as well if the node has it already.
    pub(super) async fn send(&self, raw: &[u8]) -> Result<(), ChainError> {
        let sent: Result<Value, RpcError> =
            self.call("eth_sendRawTransaction", json!([hex::encode_prefixed(raw)])).await;
        match sent {
            Ok(_hash) => Ok(()),
            Err(RpcError::Node(error)) => error.into_send_result(),
            Err(RpcError::Transport(error)) => Err(error),
        }
    }

    /// The receipt of a transaction in a block.
    pub(super) async fn receipt(&self, hash: Hash) -> Result<Option<Receipt>, ChainError> {
        let raw: Option<RawReceipt> = self.call("eth_getTransactionReceipt", json!([hash])).await?;
        Ok(raw.and_then(|raw| {
            let block = raw.block_number?.to();
            let saved = raw.logs.iter().find_map(|log| Record::of_log(&log.topics, &log.data));
            let succeeded = raw.status.is_some_and(|status| status.to::<u64>() == 1);
            Some(Receipt { hash, block, succeeded, saved, created: raw.contract_address })
        }))
    }

    /// A transaction that the node has, pending or in a block.
    pub(super) async fn transaction(&self, hash: Hash) -> Result<Option<NodeTransaction>, ChainError> {
        Ok(self.call("eth_getTransactionByHash", json!([hash])).await?)
    }

    /// Why a transaction in this block was reverted. Repeats the call on the state after that block.
    pub(super) async fn reason(&self, transaction: &NodeTransaction, block: u64) -> Result<ChainError, ChainError> {
        let input = hex::encode_prefixed(&transaction.input);
        let call = json!({ "from": transaction.from, "to": transaction.to, "data": input });
        let block = format!("0x{block:x}");
        let again: Result<Bytes, RpcError> = self.call("eth_call", json!([without_null(call), block])).await;
        match again {
            Err(RpcError::Node(error)) => Ok(error.into()),
            Err(RpcError::Transport(error)) => Err(error),
            Ok(_) => Ok(ChainError::Refused(
                "the transaction failed: it ran out of gas, or the state has changed since".into(),
            )),
        }
    }

    async fn number(&self, method: &str, params: Value) -> Result<u64, ChainError> {
        let number: U64 = self.call(method, params).await?;
        Ok(number.to())
    }
}

/// Removes null fields. A deployment has no `to` address, and some nodes refuse a `null` there.
fn without_null(mut call: Value) -> Value {
    if let Some(fields) = call.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    call
}
