//! Typed JSON-RPC calls of an Ethereum node.

use alloy::primitives::{Address, B256, TxKind, U256, hex};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    contract::Record,
    error::ChainError,
    hex::{Data, Quantity64, Quantity128, Quantity256},
    rpc::{Node, RpcError},
    transaction::{Fees, Hash, Pricing, Receipt},
};
use runtime::clients::object::Object;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Block {
    base_fee_per_gas: Option<Quantity128>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawReceipt {
    status: Option<Quantity64>,
    block_number: Option<Quantity64>,
    contract_address: Option<Address>,
    #[serde(default)]
    logs: Vec<Object<Log>>,
}

impl RawReceipt {
    /// The receipt; `None` while no block includes the transaction.
    fn in_block(self, hash: Hash) -> Option<Receipt> {
        let block = self.block_number?.get();
        let saved = self.logs.iter().find_map(|Object(log)| Record::of_log(&log.topics, &log.data.0));
        let succeeded = self.status.is_some_and(|status| status.get() == 1);
        Some(Receipt { hash, block, succeeded, saved, created: self.contract_address })
    }
}

#[derive(Deserialize)]
struct Log {
    topics: Vec<B256>,
    data: Data,
}

/// The fields that are read of a transaction on the node.
#[derive(Deserialize)]
pub(super) struct NodeTransaction {
    pub from: Address,
    pub to: Option<Address>,
    pub input: Data,
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
            self.call::<Object<Block>>("eth_getBlockByNumber", json!(["latest", false])),
            self.call::<Option<Quantity128>>("eth_maxPriorityFeePerGas", json!([])),
        );
        let Some(base) = block?.0.base_fee_per_gas.map(Quantity128::get) else {
            let price = self.gas_price().await?;
            return Ok(Pricing { fees: Fees { max_fee: price, priority: price }, has_base_fee: false });
        };
        let priority = match priority {
            Ok(Some(priority)) => priority.get(),
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
        let price: Quantity128 = self.call("eth_gasPrice", json!([])).await?;
        Ok(price.get())
    }

    /// The balance of an account, in wei.
    pub(super) async fn balance(&self, account: Address) -> Result<U256, ChainError> {
        let balance: Quantity256 = self.call("eth_getBalance", json!([account, "latest"])).await?;
        Ok(balance.0)
    }

    /// Whether the address has a contract.
    pub(super) async fn has_code(&self, address: Address) -> Result<bool, ChainError> {
        let Data(code) = self.call("eth_getCode", json!([address, "latest"])).await?;
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
        let raw: Option<Object<RawReceipt>> = self.call("eth_getTransactionReceipt", json!([hash])).await?;
        Ok(raw.and_then(|Object(raw)| raw.in_block(hash)))
    }

    /// A transaction that the node has, pending or in a block.
    pub(super) async fn transaction(&self, hash: Hash) -> Result<Option<NodeTransaction>, ChainError> {
        let found: Option<Object<NodeTransaction>> = self.call("eth_getTransactionByHash", json!([hash])).await?;
        Ok(found.map(|Object(transaction)| transaction))
    }

    /// Why a transaction in this block was reverted. Repeats the call on the state after that block.
    pub(super) async fn reason(&self, transaction: &NodeTransaction, block: u64) -> Result<ChainError, ChainError> {
        let input = hex::encode_prefixed(&transaction.input.0);
        let call = json!({ "from": transaction.from, "to": transaction.to, "data": input });
        let block = format!("0x{block:x}");
        let again: Result<Data, RpcError> = self.call("eth_call", json!([without_null(call), block])).await;
        match again {
            Err(RpcError::Node(error)) => Ok(error.into()),
            Err(RpcError::Transport(error)) => Err(error),
            Ok(_) => Ok(ChainError::Refused(
                "the transaction failed: it ran out of gas, or the state has changed since".into(),
            )),
        }
    }

    async fn number(&self, method: &str, params: Value) -> Result<u64, ChainError> {
        let number: Quantity64 = self.call(method, params).await?;
        Ok(number.get())
    }
}

/// Removes null fields. A deployment has no `to` address, and some nodes refuse a `null` there.
fn without_null(mut call: Value) -> Value {
    if let Some(fields) = call.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    call
}

#[cfg(test)]
mod tests {
    use hostile::proptest::prelude::*;
    use reqwest::StatusCode;

    use super::{super::rpc::read_response, *};

    const CORPUS: &str = include_str!("../../../../tests/corpora/rpc.txt");

    /// The result in a response that has no error, by a parser that knows no types.
    fn result_of(body: &[u8]) -> Option<Value> {
        // Both readers skip fields that they do not know, also if these are not UTF-8.
        let response: Value = serde_json::from_str(&String::from_utf8_lossy(body)).ok()?;
        let fields = response.as_object()?;
        fields.get("error").is_none_or(Value::is_null).then(|| fields.get("result").cloned())?
    }

    /// The number that a result writes, as the specification of JSON-RPC wants it.
    fn quantity(result: &Value) -> Option<u64> {
        let digits = result.as_str()?.strip_prefix("0x")?;
        u64::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))
    }

    #[test]
    fn hostile_responses_are_errors_or_the_number_that_they_write() -> Result<(), hostile::Failure> {
        let grammar = "\\{\"jsonrpc\":\"2.0\",\"id\":1,\"(result|error)\":(\"(0x)?[0-9a-f_]{0,18}\"|null|[0-9]{1,3}|\\{\"code\":-?3\\})\\}";
        hostile::check_bytes(CORPUS, grammar.prop_map(String::into_bytes), |body| {
            if let Ok(number) = read_response::<Quantity64>("eth_chainId", StatusCode::OK, body) {
                prop_assert_eq!(Some(number.get()), result_of(body).as_ref().and_then(quantity));
            }
            Ok(())
        })?;
        hostile::check(any::<u64>(), |number| {
            let body = format!(r#"{{"jsonrpc":"2.0","id":1,"result":"0x{number:x}"}}"#);
            let read = read_response::<Quantity64>("eth_chainId", StatusCode::OK, body.as_bytes());
            prop_assert_eq!(read.ok().map(Quantity64::get), Some(*number));
            Ok(())
        })
    }

    #[test]
    fn hostile_receipts_succeed_only_with_status_1_in_a_block() -> Result<(), hostile::Failure> {
        let grammar = "\\{\"result\":\\{(\"status\":\"(0x)?[01]{0,2}\",)?(\"blockNumber\":\"(0x)?[0-9a-f]{0,3}\",)?\"logs\":\\[\\]\\}\\}";
        hostile::check_bytes(CORPUS, grammar.prop_map(String::into_bytes), |body| {
            let raw = read_response::<Option<Object<RawReceipt>>>("eth_getTransactionReceipt", StatusCode::OK, body);
            let Some(receipt) = raw.ok().flatten().and_then(|Object(raw)| raw.in_block(Hash::ZERO)) else {
                return Ok(());
            };
            let result = result_of(body).unwrap_or_default();
            prop_assert!(result.is_object(), "not a receipt");
            prop_assert_eq!(Some(receipt.block), quantity(&result["blockNumber"]));
            prop_assert_eq!(receipt.succeeded, quantity(&result["status"]) == Some(1));
            Ok(())
        })
    }
}
