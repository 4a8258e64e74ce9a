//! A new contract, from the bytecode that is committed with its source.

use std::time::Duration;

use alloy::primitives::{Bytes, TxKind};
use serde::Deserialize;

use super::{config::Account, error::ChainError, node::Node, outcome, transaction::Draft};

/// What `npm run build` wrote in `contracts/`.
const BUILD: &str = include_str!("../../../../contracts/InterestRates.json");
/// Several blocks of any chain.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Build {
    bytecode: Bytes,
}

/// Makes a contract whose owner is this account, and answers its address as soon as it is in a block.
///
/// # Errors
/// When the node cannot be reached, refuses it, or has no block with it within 60 s; the text then has its hash.
pub async fn deploy(account: &Account) -> Result<String, ChainError> {
    let internal = |error: String| ChainError::Refused(format!("a fault of ours: {error}"));
    let build: Build = serde_json::from_str(BUILD).map_err(|error| internal(error.to_string()))?;
    let node = Node::new(&account.rpc_url).map_err(|error| internal(error.to_string()))?;
    let sender = account.signer.address();
    let (nonce, chain_id, gas, pricing) = tokio::try_join!(
        node.next_nonce(sender),
        node.chain_id(),
        node.gas(sender, TxKind::Create, &build.bytecode),
        node.pricing(),
    )?;
    let draft = Draft { chain_id, nonce, gas, pricing, to: TxKind::Create, input: build.bytecode };
    let prepared = draft.sign(&account.signer)?;
    match node.send(&prepared.raw).await {
        // It may have arrived, and only the answer was lost.
        Ok(()) | Err(ChainError::Unreachable(_)) => {}
        Err(error) => return Err(error),
    }
    match outcome::awaited(&node, prepared.hash, LIMIT).await? {
        Some((receipt, Some(address))) if receipt.succeeded => Ok(address.to_string()),
        Some(_) => Err(ChainError::Refused(format!("the transaction {} failed", prepared.hash))),
        None => Err(ChainError::Unreachable(format!(
            "the transaction {} was sent, but is in no block after {} s",
            prepared.hash,
            LIMIT.as_secs()
        ))),
    }
}
