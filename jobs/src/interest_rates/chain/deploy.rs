//! Deployment of a new contract from the committed bytecode.

use std::time::Duration;

use alloy::primitives::{Bytes, TxKind};
use serde::Deserialize;

use super::{
    config::Account,
    error::ChainError,
    rpc::Node,
    transaction::{Receipt, UnsignedTransaction},
};

/// The output of `npm run build` in `contracts/`.
const BUILD: &str = include_str!("../../../../contracts/InterestRates.json");
/// The time limit of a deployment: several blocks on most chains.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Build {
    bytecode: Bytes,
}

/// Deploys a contract that this account owns, and returns its address once a block includes it.
///
/// # Errors
/// Fails if the node cannot be reached or refuses the transaction, or if no block includes it within 60 s. Then the
/// text contains the transaction's hash.
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
    let draft = UnsignedTransaction { chain_id, nonce, gas, pricing, to: TxKind::Create, input: build.bytecode };
    let prepared = draft.sign(&account.signer)?;
    match node.send(&prepared.raw).await {
        // The transaction may have arrived although the response was lost.
        Ok(()) | Err(ChainError::Unreachable(_)) => {}
        Err(error) => return Err(error),
    }
    match node.await_receipt(prepared.hash, LIMIT).await? {
        Some(Receipt { succeeded: true, created: Some(address), .. }) => Ok(address.to_string()),
        Some(_) => Err(ChainError::Refused(format!("the transaction {} failed", prepared.hash))),
        None => Err(ChainError::Unreachable(format!(
            "the transaction {} was sent, but is in no block after {} s",
            prepared.hash,
            LIMIT.as_secs()
        ))),
    }
}
