//! JSON-RPC over HTTP, each call with a limit, and without a word about the URL in errors or logs.
//!
//! Not alloy's provider: it puts the URL, which may hold a password, into a span at `RUST_LOG=debug`, and its layers cost
//! more crates than these lines.

use std::time::Duration;

use alloy::primitives::{Bytes, hex};
use reqwest::{Client, StatusCode, redirect};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use url::Url;

use super::{contract, error::ChainError};
use crate::{
    error::{Error, causes},
    remote::send::send,
};

/// The limit of one call.
const LIMIT: Duration = Duration::from_secs(5);
/// The largest answer: a block with many transactions has less, a page of records 40 KiB.
const MOST_BYTES: usize = 4 << 20;
/// A node's words are shown up to here: they may repeat what was sent.
const MOST_WORDS: usize = 200;

/// A node.
#[derive(Clone)]
pub struct Rpc {
    client: Client,
    url: Url,
}

/// Why a call has no result.
#[derive(Debug)]
pub enum Fault {
    /// There was no answer, or none of a node of Ethereum's.
    Transport(ChainError),
    /// The node has refused it.
    Answer(Refusal),
}

/// An error of the node's.
#[derive(Debug, Deserialize)]
pub struct Refusal {
    code: i64,
    #[serde(default)]
    message: String,
    #[serde(default)]
    data: Value,
}

#[derive(Deserialize)]
struct Answer {
    // Both may be missing: then it is no answer.
    #[serde(default, deserialize_with = "present")]
    result: Option<Value>,
    error: Option<Refusal>,
}

/// `null` is a result as well: a transaction that the node does not know.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Rpc {
    /// Without any I/O.
    pub fn new(url: &Url) -> Result<Self, Error> {
        let client = Client::builder()
            .timeout(LIMIT)
            // A redirected call would show the password to somebody else.
            .redirect(redirect::Policy::none())
            .user_agent("millrace")
            .build()
            .map_err(|error| Error::Internal(format!("HTTP client: {}", causes(&error))))?;
        Ok(Self { client, url: url.clone() })
    }

    /// Calls a method.
    pub async fn call<T: DeserializeOwned>(&self, method: &str, params: Value) -> Result<T, Fault> {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let request = self.client.post(self.url.clone()).json(&request);
        let mut sent = send(request, "chain").await.map_err(unreachable)?;
        let status = sent.status();
        let mut body = Vec::new();
        while let Some(chunk) = sent.chunk().await.map_err(unreachable)? {
            body.extend_from_slice(&chunk);
            if body.len() > MOST_BYTES {
                return Err(Fault::unreachable(format!("its answer to {method} does not end")));
            }
        }
        let answer: Option<Answer> = serde_json::from_slice(&body).ok();
        match (status, answer) {
            (status, _) if passing(status) => Err(Fault::unreachable(format!("it answers {status}"))),
            (_, Some(Answer { error: Some(refusal), .. })) => Err(refusal.sorted()),
            (StatusCode::OK, Some(Answer { result: Some(result), .. })) => serde_json::from_value(result)
                .map_err(|_| Fault::unreachable(format!("its answer to {method} cannot be understood"))),
            (StatusCode::OK, _) => Err(Fault::unreachable("its answer is no JSON-RPC".into())),
            (status, _) => Err(Fault::Transport(ChainError::Misconfigured(format!(
                "what is at CHAIN_RPC_URL answers {status}, not as a node does"
            )))),
        }
    }
}

/// Statuses of a server or a proxy that is overloaded, restarts, or has lost its node.
fn passing(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

fn unreachable(error: reqwest::Error) -> Fault {
    if error.is_timeout() {
        return Fault::unreachable(format!("it does not answer within {} s", LIMIT.as_secs()));
    }
    Fault::unreachable(causes(&error.without_url()))
}

impl Fault {
    fn unreachable(why: String) -> Self {
        Self::Transport(ChainError::Unreachable(why))
    }
}

impl Refusal {
    /// Nodes report by errors as well that they are too busy.
    fn sorted(self) -> Fault {
        /// "Limit exceeded" (EIP-1474), "too many requests" by some providers, and HTTP's code by others.
        const BUSY: [i64; 3] = [-32005, -32029, 429];
        let is_limit = BUSY.contains(&self.code)
            || self.says(&["rate limit", "too many requests", "request limit", "requests per second", "request rate"]);
        if is_limit && !self.is_revert() { Fault::unreachable(self.words()) } else { Fault::Answer(self) }
    }

    fn says(&self, any: &[&str]) -> bool {
        let words = self.message.to_lowercase();
        any.iter().any(|text| words.contains(text))
    }

    /// Nodes have only words for it. An estimate says that the gas "exceeds the allowance" that the balance pays for.
    fn is_unfunded(&self) -> bool {
        self.says(&[
            "insufficient funds",
            "insufficient balance",
            "insufficient sender balance",
            "enough funds",
            "enough balance",
            "exceeds allowance",
            "upfront cost exceeds",
        ])
    }

    fn words(&self) -> String {
        let words: String = self.message.chars().filter(|c| !c.is_control()).take(MOST_WORDS).collect();
        if words.is_empty() { format!("error {}", self.code) } else { words }
    }

    /// What the contract answered. Nodes put it at different depths.
    fn revert(&self) -> Option<Bytes> {
        fn find(value: &Value) -> Option<Bytes> {
            match value {
                // Some write `Reverted 0x…`.
                Value::String(text) => hex::decode(text.rsplit(' ').next()?.strip_prefix("0x")?).ok().map(Bytes::from),
                Value::Object(fields) => fields.values().find_map(find),
                _ => None,
            }
        }
        find(&self.data).filter(|data| data.len() >= 4)
    }

    /// Whether the contract has refused it, and not the node.
    pub fn is_revert(&self) -> bool {
        /// Of geth and those like it.
        const REVERTED: i64 = 3;
        self.code == REVERTED || self.revert().is_some()
    }

    /// What the answer to a sending means: nodes have only words for it.
    pub fn of_sending(self) -> Result<(), ChainError> {
        /// "Internal error" (JSON-RPC 2.0).
        const INTERNAL: i64 = -32603;
        if self.says(&["already known", "alreadyknown", "already imported", "already in mempool", "known transaction"])
        {
            Ok(())
        } else if self.says(&["nonce too low", "nonce is too low", "already been used"]) {
            Err(ChainError::NonceUsed)
        } else if self.says(&[
            "underpriced",
            "fee too low",
            "less than block base fee",
            "lower than the block base fee",
        ]) {
            Err(ChainError::Underpriced)
        } else if self.is_unfunded() {
            Err(ChainError::Unfunded(self.words()))
        } else if self.revert().is_none() && (self.code == INTERNAL || self.says(&["timeout", "timed out"])) {
            // It may have been passed on before that went wrong.
            Err(ChainError::Unreachable(self.words()))
        } else {
            Err(self.into())
        }
    }
}

impl From<Refusal> for ChainError {
    fn from(refusal: Refusal) -> Self {
        match refusal.revert().and_then(|data| contract::refusal(&data)) {
            Some(known) => known,
            None if !refusal.is_revert() && refusal.is_unfunded() => Self::Unfunded(refusal.words()),
            None => Self::Refused(refusal.words()),
        }
    }
}

impl From<Fault> for ChainError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Transport(error) => error,
            Fault::Answer(refusal) => refusal.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(json: Value) -> Refusal {
        serde_json::from_value(json).expect("an error")
    }

    #[test]
    fn reverts_are_read_from_their_data_wherever_it_is() {
        const ALREADY: &str = "0xe0ff2fee0000000000000000000000000000000000000000000000000000000000000001";
        let selector = hex::encode(<contract::InterestRates::AlreadySaved as alloy::sol_types::SolError>::SELECTOR);
        let data = ALREADY.replace("e0ff2fee", &selector);
        for data in [
            json!(data),
            json!({ "data": data, "message": "whatever" }),
            json!({ "hash": { "return": data } }),
            json!(format!("Reverted {data}")),
        ] {
            let error = refusal(json!({ "code": 3, "message": "NotOwner()", "data": data }));
            assert_eq!(ChainError::from(error), ChainError::AlreadySaved, "{data}");
        }
        let other = refusal(json!({ "code": 3, "message": "execution reverted", "data": "0x12345678" }));
        assert_eq!(ChainError::from(other), ChainError::Refused("execution reverted".into()));
        let none = refusal(json!({ "code": -32000 }));
        assert_eq!(ChainError::from(none), ChainError::Refused("error -32000".into()));
    }

    #[test]
    fn a_sendings_answer_has_its_meaning_on_every_node() {
        let sent = |message: &str| refusal(json!({ "code": -32000, "message": message })).of_sending();
        for known in ["already known", "ALREADY_EXISTS: already known", "transaction already imported"] {
            assert_eq!(sent(known), Ok(()), "{known}");
        }
        for used in ["nonce too low", "nonce too low: next nonce 5, tx nonce 4", "Transaction nonce is too low."] {
            assert_eq!(sent(used), Err(ChainError::NonceUsed), "{used}");
        }
        for cheap in ["replacement transaction underpriced", "transaction underpriced: tip needed 1, tip permitted 0"] {
            assert_eq!(sent(cheap), Err(ChainError::Underpriced), "{cheap}");
        }
        assert_eq!(sent("request timed out"), Err(ChainError::Unreachable("request timed out".into())));
        let internal = refusal(json!({ "code": -32603, "message": "Internal error" })).of_sending();
        assert!(matches!(internal, Err(ChainError::Unreachable(_))), "{internal:?}");
        for poor in [
            "insufficient funds for gas * price + value: balance 0, tx cost 1, overshot 1",
            "Insufficient funds for gas * price + value",
            "sender doesn't have enough funds to send tx. The max upfront cost is: 1 and the sender's balance is: 0.",
            "Upfront cost exceeds account balance",
        ] {
            assert_eq!(sent(poor), Err(ChainError::Unfunded(poor.into())), "{poor}");
            let internal = refusal(json!({ "code": -32603, "message": poor })).of_sending();
            assert_eq!(internal, Err(ChainError::Unfunded(poor.into())), "{poor}");
        }
        let large = "exceeds block gas limit";
        assert_eq!(sent(large), Err(ChainError::Refused(large.into())));
    }

    #[test]
    fn a_node_that_is_busy_is_one_that_cannot_be_reached() {
        for (code, message) in [
            (-32005, "daily limit exceeded"),
            (-32029, "Too Many Requests"),
            (-32029, ""),
            (429, "slow down"),
            (-32016, "over rate limit"),
            (-32007, "50/second request limit reached - reduce calls per second"),
            (-32000, "Your app has exceeded its compute units per second capacity: too many requests"),
        ] {
            let busy = refusal(json!({ "code": code, "message": message })).sorted();
            assert!(matches!(busy.into(), ChainError::Unreachable(_)), "{code} {message}");
        }
        for (code, message) in [(-32000, "exceeds block gas limit"), (3, "execution reverted: rate limit")] {
            let other = refusal(json!({ "code": code, "message": message })).sorted();
            assert!(matches!(other.into(), ChainError::Refused(_)), "{code} {message}");
        }
    }

    #[test]
    fn null_is_a_result() {
        let read = |text: &str| serde_json::from_str::<Answer>(text).expect("an answer").result;
        assert_eq!(read(r#"{"result":null}"#), Some(Value::Null));
        assert_eq!(read(r#"{}"#), None);
    }
}
