//! JSON-RPC client over HTTP. Each call has a time limit. Errors and logs do not contain the URL, which may hold a
//! password.
//!
//! It replaces alloy's provider, which puts the URL into a span at `RUST_LOG=debug` and needs several more crates.

use std::time::Duration;

use alloy::primitives::{Bytes, hex};
use reqwest::{Client, StatusCode};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use url::Url;

use super::{contract, error::ChainError};
use runtime::{
    clients::{http, object::Object, send::send},
    error::{Error, causes},
};

/// The time limit of one call.
const LIMIT: Duration = Duration::from_secs(5);
/// The limit of a response body. A block with many transactions is smaller; a page of records has 40 KiB.
const MAX_RESPONSE_BYTES: usize = 4 << 20;
/// The limit of a node's error message in our errors: it may repeat the request.
const MAX_MESSAGE_CHARS: usize = 200;

/// A node of Ethereum or of a compatible chain, reached by JSON-RPC. `node.rs` has its typed calls.
#[derive(Clone)]
pub(super) struct Node {
    client: Client,
    url: Url,
}

/// Why a call failed.
#[derive(Debug)]
pub enum RpcError {
    /// There was no response, or not a JSON-RPC response.
    Transport(ChainError),
    /// The node returned an error.
    Node(NodeError),
}

/// An error that a node returned.
#[derive(Debug, Deserialize)]
pub struct NodeError {
    code: i64,
    #[serde(default)]
    message: String,
    #[serde(default)]
    data: Value,
}

#[derive(Deserialize)]
struct RpcResponse {
    // If both are missing, it is not a JSON-RPC response.
    #[serde(default, deserialize_with = "present_value")]
    result: Option<Value>,
    error: Option<Object<NodeError>>,
}

/// Keeps a `null` result apart from a missing one: it stands for an unknown transaction.
fn present_value<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Node {
    /// Builds the client without I/O.
    pub(super) fn new(url: &Url) -> Result<Self, Error> {
        Ok(Self { client: http::client(|client| client.timeout(LIMIT))?, url: url.clone() })
    }

    /// Calls a JSON-RPC method.
    pub(super) async fn call<T: DeserializeOwned>(&self, method: &str, params: Value) -> Result<T, RpcError> {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let request = self.client.post(self.url.clone()).json(&request);
        let mut response = send(request, "chain").await.map_err(transport_error)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(transport_error)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_RESPONSE_BYTES {
                return Err(RpcError::unreachable(format!(
                    "its response to {method} is larger than {MAX_RESPONSE_BYTES} bytes"
                )));
            }
        }
        read_response(method, status, &body)
    }
}

/// Reads the result of a call.
///
/// # Errors
/// When the node returned an error, or something else than a JSON-RPC response with a result of this form.
pub(super) fn read_response<T: DeserializeOwned>(method: &str, status: StatusCode, body: &[u8]) -> Result<T, RpcError> {
    let response = serde_json::from_slice(body).ok().map(|Object(response): Object<RpcResponse>| response);
    match (status, response) {
        (status, _) if is_transient(status) => Err(RpcError::unreachable(format!("it responded with {status}"))),
        (_, Some(RpcResponse { error: Some(Object(error)), .. })) => Err(error.classify()),
        (StatusCode::OK, Some(RpcResponse { result: Some(result), .. })) => serde_json::from_value(result)
            .map_err(|_| RpcError::unreachable(format!("its response to {method} has an unexpected form"))),
        (StatusCode::OK, _) => Err(RpcError::unreachable("its response is not JSON-RPC".into())),
        (status, _) => Err(RpcError::Transport(ChainError::Misconfigured(format!(
            "the server at CHAIN_RPC_URL responded with {status}, which is not a node's response"
        )))),
    }
}

/// Whether the status is temporary: a server or proxy that is overloaded, restarts, or has lost its node.
fn is_transient(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

fn transport_error(error: reqwest::Error) -> RpcError {
    if error.is_timeout() {
        return RpcError::unreachable(format!("it did not respond within {} s", LIMIT.as_secs()));
    }
    RpcError::unreachable(causes(&error.without_url()))
}

impl RpcError {
    fn unreachable(reason: String) -> Self {
        Self::Transport(ChainError::Unreachable(reason))
    }
}

impl NodeError {
    /// Converts it into an [`RpcError`]. A rate limit of the node counts as unreachable.
    fn classify(self) -> RpcError {
        /// "Limit exceeded" (EIP-1474), "too many requests" of some providers, and the HTTP status of others.
        const BUSY: [i64; 3] = [-32005, -32029, 429];
        let is_limit = BUSY.contains(&self.code)
            || self.message_contains(&[
                "rate limit",
                "too many requests",
                "request limit",
                "requests per second",
                "request rate",
            ]);
        if is_limit && !self.is_revert() { RpcError::unreachable(self.short_message()) } else { RpcError::Node(self) }
    }

    fn message_contains(&self, any: &[&str]) -> bool {
        let message = self.message.to_lowercase();
        any.iter().any(|text| message.contains(text))
    }

    /// Whether the account cannot pay. Only the message tells it: there is no error code. A gas estimate fails with
    /// "exceeds allowance".
    fn is_unfunded(&self) -> bool {
        self.message_contains(&[
            "insufficient funds",
            "insufficient balance",
            "insufficient sender balance",
            "enough funds",
            "enough balance",
            "exceeds allowance",
            "upfront cost exceeds",
        ])
    }

    /// The message without control characters, limited in length.
    fn short_message(&self) -> String {
        let message: String = self.message.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE_CHARS).collect();
        if message.is_empty() { format!("error {}", self.code) } else { message }
    }

    /// The revert data of the contract. Nodes put it at different depths.
    fn revert_data(&self) -> Option<Bytes> {
        fn find(value: &Value) -> Option<Bytes> {
            match value {
                // Some nodes return `Reverted 0x…`.
                Value::String(text) => hex::decode(text.rsplit(' ').next()?.strip_prefix("0x")?).ok().map(Bytes::from),
                Value::Object(fields) => fields.values().find_map(find),
                _ => None,
            }
        }
        find(&self.data).filter(|data| data.len() >= 4)
    }

    /// Whether the contract reverted the call; otherwise the node refused it.
    pub fn is_revert(&self) -> bool {
        /// The code of geth and compatible nodes.
        const REVERTED: i64 = 3;
        self.code == REVERTED || self.revert_data().is_some()
    }

    /// The result of a send. Only the message tells it: there are no error codes.
    pub fn into_send_result(self) -> Result<(), ChainError> {
        /// "Internal error" (JSON-RPC 2.0).
        const INTERNAL: i64 = -32603;
        if self.message_contains(&[
            "already known",
            "alreadyknown",
            "already imported",
            "already in mempool",
            "known transaction",
        ]) {
            Ok(())
        } else if self.message_contains(&["nonce too low", "nonce is too low", "already been used"]) {
            Err(ChainError::NonceUsed)
        } else if self.message_contains(&[
            "underpriced",
            "fee too low",
            "less than block base fee",
            "lower than the block base fee",
        ]) {
            Err(ChainError::Underpriced)
        } else if self.is_unfunded() {
            Err(ChainError::Unfunded(self.short_message()))
        } else if self.revert_data().is_none()
            && (self.code == INTERNAL || self.message_contains(&["timeout", "timed out"]))
        {
            // The node may have forwarded the transaction before it failed.
            Err(ChainError::Unreachable(self.short_message()))
        } else {
            Err(self.into())
        }
    }
}

impl From<NodeError> for ChainError {
    fn from(error: NodeError) -> Self {
        match error.revert_data().and_then(|data| contract::decode_revert(&data)) {
            Some(known) => known,
            None if !error.is_revert() && error.is_unfunded() => Self::Unfunded(error.short_message()),
            None => Self::Refused(error.short_message()),
        }
    }
}

impl From<RpcError> for ChainError {
    fn from(error: RpcError) -> Self {
        match error {
            RpcError::Transport(error) => error,
            RpcError::Node(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node_error(json: Value) -> NodeError {
        serde_json::from_value(json).expect("an error")
    }

    #[test]
    fn revert_data_is_found_at_any_depth() {
        const ALREADY: &str = "0xe0ff2fee0000000000000000000000000000000000000000000000000000000000000001";
        let selector = hex::encode(<contract::InterestRates::AlreadySaved as alloy::sol_types::SolError>::SELECTOR);
        let data = ALREADY.replace("e0ff2fee", &selector);
        for data in [
            json!(data),
            json!({ "data": data, "message": "any" }),
            json!({ "hash": { "return": data } }),
            json!(format!("Reverted {data}")),
        ] {
            let error = node_error(json!({ "code": 3, "message": "NotOwner()", "data": data }));
            assert_eq!(ChainError::from(error), ChainError::AlreadySaved, "{data}");
        }
        let other = node_error(json!({ "code": 3, "message": "execution reverted", "data": "0x12345678" }));
        assert_eq!(ChainError::from(other), ChainError::Refused("execution reverted".into()));
        let none = node_error(json!({ "code": -32000 }));
        assert_eq!(ChainError::from(none), ChainError::Refused("error -32000".into()));
    }

    #[test]
    fn send_errors_of_all_nodes_are_recognised() {
        let send_result = |message: &str| node_error(json!({ "code": -32000, "message": message })).into_send_result();
        for known in ["already known", "ALREADY_EXISTS: already known", "transaction already imported"] {
            assert_eq!(send_result(known), Ok(()), "{known}");
        }
        for used in ["nonce too low", "nonce too low: next nonce 5, tx nonce 4", "Transaction nonce is too low."] {
            assert_eq!(send_result(used), Err(ChainError::NonceUsed), "{used}");
        }
        for cheap in ["replacement transaction underpriced", "transaction underpriced: tip needed 1, tip permitted 0"] {
            assert_eq!(send_result(cheap), Err(ChainError::Underpriced), "{cheap}");
        }
        assert_eq!(send_result("request timed out"), Err(ChainError::Unreachable("request timed out".into())));
        let internal = node_error(json!({ "code": -32603, "message": "Internal error" })).into_send_result();
        assert!(matches!(internal, Err(ChainError::Unreachable(_))), "{internal:?}");
        for poor in [
            "insufficient funds for gas * price + value: balance 0, tx cost 1, overshot 1",
            "Insufficient funds for gas * price + value",
            "sender doesn't have enough funds to send tx. The max upfront cost is: 1 and the sender's balance is: 0.",
            "Upfront cost exceeds account balance",
        ] {
            assert_eq!(send_result(poor), Err(ChainError::Unfunded(poor.into())), "{poor}");
            let internal = node_error(json!({ "code": -32603, "message": poor })).into_send_result();
            assert_eq!(internal, Err(ChainError::Unfunded(poor.into())), "{poor}");
        }
        let large = "exceeds block gas limit";
        assert_eq!(send_result(large), Err(ChainError::Refused(large.into())));
    }

    #[test]
    fn a_rate_limit_counts_as_unreachable() {
        for (code, message) in [
            (-32005, "daily limit exceeded"),
            (-32029, "Too Many Requests"),
            (-32029, ""),
            (429, "slow down"),
            (-32016, "over rate limit"),
            (-32007, "50/second request limit reached - reduce calls per second"),
            (-32000, "Your app has exceeded its compute units per second capacity: too many requests"),
        ] {
            let busy = node_error(json!({ "code": code, "message": message })).classify();
            assert!(matches!(busy.into(), ChainError::Unreachable(_)), "{code} {message}");
        }
        for (code, message) in [(-32000, "exceeds block gas limit"), (3, "execution reverted: rate limit")] {
            let other = node_error(json!({ "code": code, "message": message })).classify();
            assert!(matches!(other.into(), ChainError::Refused(_)), "{code} {message}");
        }
    }

    #[test]
    fn a_null_result_is_not_a_missing_result() {
        let read = |text: &str| serde_json::from_str::<RpcResponse>(text).expect("a response").result;
        assert_eq!(read(r#"{"result":null}"#), Some(Value::Null));
        assert_eq!(read(r#"{}"#), None);
    }
}
