//! The chain: rates on a smart contract that no id can enter twice, whatever is sent again.
//!
//! | file | what |
//! |---|---|
//! | `config` | which node, key and contract |
//! | `contract` | what the contract offers, from its source |
//! | `transaction` | transactions: signed, sent, and what became of them |
//! | `node` | what a node is asked, in its own words |
//! | `rpc` | JSON-RPC |
//! | `outcome` | what became of what was sent |
//! | `deploy` | a new contract |
//! | `scaled` | rates in units of 10^-18 |
//! | `known` | accounts whose keys everybody has |
//!
//! Several processes write with one key, and a nonce is used once. So nothing here counts nonces: the caller takes a lock
//! for [`Chain::sender`], has a transaction [prepared](Chain::prepare) with the next nonce by the node, records it, has it
//! [sent](Chain::send), and only then lets the next one in.

mod config;
mod contract;
mod deploy;
mod error;
mod known;
mod node;
mod outcome;
mod rpc;
mod scaled;
mod transaction;

use alloy::{
    primitives::{Address, Bytes, TxKind, U256, hex},
    signers::local::PrivateKeySigner,
    sol_types::SolCall,
};
use serde_json::json;
use uuid::Uuid;

pub use self::{
    config::{Account, ChainConfig},
    contract::Record,
    deploy::deploy,
    error::ChainError,
    scaled::{Scaled, ScaledError},
    transaction::{Fees, Hash, Outcome, Prepared, Receipt, Sent},
};
use self::{
    contract::{NOT_OURS, currentCall, findCall, not_owner, ownerCall, pageCall, saveCall},
    node::Node,
    rpc::Fault,
    transaction::Draft,
};
use crate::error::Error;

/// One contract, written to with one key. Clones share everything.
#[derive(Clone)]
pub struct Chain {
    node: Node,
    signer: PrivateKeySigner,
    contract: Address,
}

impl Chain {
    /// Without any I/O: who uses it starts while the chain is down.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn new(config: &ChainConfig) -> Result<Self, Error> {
        let node = Node::new(&config.account.rpc_url)?;
        Ok(Self { node, signer: config.account.signer.clone(), contract: config.contract })
    }

    /// The address of the account that writes, whose nonces are taken one after the other.
    pub fn sender(&self) -> String {
        self.signer.address().to_string()
    }

    /// The address of the contract.
    pub fn contract(&self) -> String {
        self.contract.to_string()
    }

    /// Whether it could be written to: the node answers, the contract is there, and it is ours.
    ///
    /// # Errors
    /// Why not.
    pub async fn ready(&self) -> Result<(), ChainError> {
        let owner = self.view(ownerCall {}).await?;
        if owner == self.signer.address() { Ok(()) } else { Err(not_owner()) }
    }

    /// Whether the account can pay for a saving at the prices of now.
    ///
    /// # Errors
    /// [`ChainError::Unfunded`] when it cannot; when the node does not say what a saving costs.
    pub async fn can_pay(&self) -> Result<(), ChainError> {
        // An id that no submission has.
        let input = save_input(Uuid::now_v7(), Scaled::MOST);
        let (gas, pricing, balance) = tokio::try_join!(
            self.node.gas(self.signer.address(), TxKind::Call(self.contract), &input),
            self.node.pricing(),
            self.node.balance(self.signer.address()),
        )?;
        self.payable(gas, pricing.fees, balance)
    }

    /// The record with the highest id, which is the one submitted last.
    ///
    /// # Errors
    /// When the contract cannot be asked.
    pub async fn current(&self) -> Result<Option<Record>, ChainError> {
        let current = self.view(currentCall {}).await?;
        current.found.then(|| Record::of(current.index, &current.saved)).transpose()
    }

    /// The records before the place `before`, or the last ones; the last saved first, at most `limit` and at most 200.
    ///
    /// # Errors
    /// When the contract cannot be asked.
    pub async fn page(&self, before: Option<u64>, limit: u32) -> Result<Vec<Record>, ChainError> {
        let before = before.map_or(U256::MAX, U256::from);
        let page = self.view(pageCall { before, limit: U256::from(limit) }).await?;
        let places = (0..page.found.len()).map(|behind| page.first.saturating_sub(U256::from(behind)));
        places.zip(&page.found).map(|(index, kept)| Record::of(index, kept)).collect()
    }

    /// The record of an id.
    ///
    /// # Errors
    /// When the contract cannot be asked.
    pub async fn find(&self, id: Uuid) -> Result<Option<Record>, ChainError> {
        let found = self.view(findCall { id: id.as_u128() }).await?;
        found.found.then(|| Record::of(found.index, &found.saved)).transpose()
    }

    /// Signs a saving with the next nonce, behind everything that the node has of this sender.
    ///
    /// # Errors
    /// [`ChainError::AlreadySaved`] when the contract has the id; [`ChainError::Misconfigured`] when it is not ours; when
    /// the node cannot be asked.
    pub async fn prepare(&self, id: Uuid, rate: Scaled) -> Result<Prepared, ChainError> {
        let nonce = self.node.next_nonce(self.signer.address());
        self.signed(id, rate, nonce, None).await
    }

    /// Signs a saving in the place of one that was sent with the same nonce, for fees at least an eighth higher.
    ///
    /// # Errors
    /// As [`Chain::prepare`].
    pub async fn replace(&self, id: Uuid, rate: Scaled, nonce: u64, earlier: Fees) -> Result<Prepared, ChainError> {
        self.signed(id, rate, async { Ok(nonce) }, Some(earlier)).await
    }

    async fn signed(
        &self,
        id: Uuid,
        rate: Scaled,
        nonce: impl Future<Output = Result<u64, ChainError>>,
        earlier: Option<Fees>,
    ) -> Result<Prepared, ChainError> {
        let input = save_input(id, rate);
        let to = TxKind::Call(self.contract);
        let (nonce, chain_id, gas, pricing, balance, ()) = tokio::try_join!(
            nonce,
            self.node.chain_id(),
            self.node.gas(self.signer.address(), to, &input),
            self.node.pricing(),
            self.node.balance(self.signer.address()),
            // An address without code takes every call, and keeps nothing.
            self.coded(),
        )?;
        let pricing = earlier.map_or(pricing, |earlier| pricing.above(earlier));
        // A node would refuse it as well, but only after it was signed and recorded.
        self.payable(gas, pricing.fees, balance)?;
        Draft { chain_id, nonce, gas, pricing, to, input: input.into() }.sign(&self.signer)
    }

    fn payable(&self, gas: u64, fees: Fees, balance: U256) -> Result<(), ChainError> {
        let cost = U256::from(gas).saturating_mul(U256::from(fees.max_fee));
        if balance >= cost {
            return Ok(());
        }
        let sender = self.signer.address();
        Err(ChainError::Unfunded(format!("{sender} has {balance} wei, and a saving may cost {cost}; send it funds")))
    }

    /// Whether the node has this transaction, in a block or not.
    ///
    /// # Errors
    /// When the node cannot be asked.
    pub async fn knows(&self, hash: Hash) -> Result<bool, ChainError> {
        Ok(self.node.transaction(hash).await?.is_some())
    }

    /// Sends what was signed; again as often as need be.
    ///
    /// # Errors
    /// [`ChainError::Unreachable`] when it may or may not have arrived; [`ChainError::Unfunded`]; [`ChainError::NonceUsed`] when its nonce is in a
    /// block, by itself or by another one; [`ChainError::Underpriced`]; [`ChainError::Refused`].
    pub async fn send(&self, raw: &[u8]) -> Result<(), ChainError> {
        self.node.send(raw).await
    }

    async fn coded(&self) -> Result<(), ChainError> {
        if self.node.has_code(self.contract).await? { Ok(()) } else { Err(misplaced()) }
    }

    /// Asks the contract, as of the latest block.
    async fn view<C: SolCall>(&self, call: C) -> Result<C::Return, ChainError> {
        let call = json!({ "to": self.contract, "data": hex::encode_prefixed(call.abi_encode()) });
        let returned: Result<Bytes, Fault> = self.node.rpc.call("eth_call", json!([call, "latest"])).await;
        match returned {
            // An address without code answers with nothing.
            Ok(returned) => C::abi_decode_returns(&returned).map_err(|_| misplaced()),
            // No view of ours refuses anything.
            Err(Fault::Answer(refusal)) if refusal.is_revert() => Err(misplaced()),
            Err(fault) => Err(fault.into()),
        }
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain").field("sender", &self.sender()).field("contract", &self.contract).finish()
    }
}

fn save_input(id: Uuid, rate: Scaled) -> Vec<u8> {
    saveCall { id: id.as_u128(), rate: U256::from(rate.units()) }.abi_encode()
}

fn misplaced() -> ChainError {
    ChainError::Misconfigured(NOT_OURS.into())
}
