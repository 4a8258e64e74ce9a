//! Client of the smart contract that stores rates. The contract accepts each id once, so a transaction may be sent
//! again without a double save.
//!
//! Several processes write with one key, and each nonce can be used once. Nonces are therefore not counted here. The
//! caller locks [`Chain::sender`], [prepares](Chain::prepare) a transaction with the node's next nonce, records it,
//! [sends](Chain::send) it, and then releases the lock.

mod config;
mod contract;
mod deploy;
mod error;
mod hex;
mod node;
mod outcome;
mod published_keys;
mod rpc;
mod scaled;
mod transaction;

use alloy::{
    primitives::{Address, TxKind, U256, hex::encode_prefixed},
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
    scaled::{ScaledRate, ScaledRateError},
    transaction::{Fees, Hash, Outcome, Receipt, SentTransaction, SignedTransaction},
};
use self::{
    contract::{NO_CONTRACT, currentCall, findCall, not_owner, ownerCall, pageCall, saveCall},
    hex::Data,
    rpc::{Node, RpcError},
    transaction::UnsignedTransaction,
};
use runtime::error::Error;

/// One contract, and the key that writes to it. Clones share the connection.
#[derive(Clone)]
pub struct Chain {
    node: Node,
    signer: PrivateKeySigner,
    contract: Address,
}

impl Chain {
    /// Builds the client without I/O, so that a process can start while the chain is down.
    ///
    /// # Errors
    /// Fails if the HTTP client cannot be built.
    pub fn new(config: &ChainConfig) -> Result<Self, Error> {
        let node = Node::new(&config.account.rpc_url)?;
        Ok(Self { node, signer: config.account.signer.clone(), contract: config.contract })
    }

    /// The address of the account that writes. Its nonces are used in sequence.
    pub fn sender(&self) -> String {
        self.signer.address().to_string()
    }

    /// The address of the contract.
    pub fn contract(&self) -> String {
        self.contract.to_string()
    }

    /// Checks that the node responds, and that the contract exists and belongs to the account.
    ///
    /// # Errors
    /// Returns [`ChainError::Unreachable`] or [`ChainError::Misconfigured`] with the reason.
    pub async fn ready(&self) -> Result<(), ChainError> {
        let owner = self.call_view(ownerCall {}).await?;
        if owner == self.signer.address() { Ok(()) } else { Err(not_owner()) }
    }

    /// Checks that the account can pay for a save at current fees.
    ///
    /// # Errors
    /// Returns [`ChainError::Unfunded`] if it cannot. Fails as well if the node does not return the fees.
    pub async fn can_pay(&self) -> Result<(), ChainError> {
        // A fresh id, so that the contract does not refuse it.
        let input = save_input(Uuid::now_v7(), ScaledRate::MAX);
        let (gas, pricing, balance) = tokio::try_join!(
            self.node.gas(self.signer.address(), TxKind::Call(self.contract), &input),
            self.node.pricing(),
            self.node.balance(self.signer.address()),
        )?;
        self.require_funds(gas, pricing.fees, balance)
    }

    /// The record with the highest id: the one submitted last.
    ///
    /// # Errors
    /// Fails if the contract cannot be read.
    pub async fn current(&self) -> Result<Option<Record>, ChainError> {
        let current = self.call_view(currentCall {}).await?;
        current.found.then(|| Record::of(current.index, &current.saved)).transpose()
    }

    /// The records with an index below `before`, or the last ones; the last saved one first, at most `limit` and at
    /// most 200.
    ///
    /// # Errors
    /// Fails if the contract cannot be read.
    pub async fn page(&self, before: Option<u64>, limit: u32) -> Result<Vec<Record>, ChainError> {
        let before = before.map_or(U256::MAX, U256::from);
        let page = self.call_view(pageCall { before, limit: U256::from(limit) }).await?;
        let indexes = (0..page.found.len()).map(|behind| page.first.saturating_sub(U256::from(behind)));
        indexes.zip(&page.found).map(|(index, stored)| Record::of(index, stored)).collect()
    }

    /// The record with this id.
    ///
    /// # Errors
    /// Fails if the contract cannot be read.
    pub async fn find(&self, id: Uuid) -> Result<Option<Record>, ChainError> {
        let found = self.call_view(findCall { id: id.as_u128() }).await?;
        found.found.then(|| Record::of(found.index, &found.saved)).transpose()
    }

    /// Signs a transaction that saves a rate, with the next nonce after all transactions of the account that the node
    /// has.
    ///
    /// # Errors
    /// Returns [`ChainError::AlreadySaved`] if the contract has the id, and [`ChainError::Misconfigured`] if the
    /// contract is missing or has another owner. Fails as well if the node cannot be reached or the account cannot pay.
    pub async fn prepare(&self, id: Uuid, rate: ScaledRate) -> Result<SignedTransaction, ChainError> {
        let nonce = self.node.next_nonce(self.signer.address());
        self.sign_saving(id, rate, nonce, None).await
    }

    /// Signs a replacement for a sent transaction: the same nonce, with fees at least an eighth higher.
    ///
    /// # Errors
    /// Fails in the same cases as [`Chain::prepare`].
    pub async fn replace(
        &self,
        id: Uuid,
        rate: ScaledRate,
        nonce: u64,
        earlier: Fees,
    ) -> Result<SignedTransaction, ChainError> {
        self.sign_saving(id, rate, async { Ok(nonce) }, Some(earlier)).await
    }

    async fn sign_saving(
        &self,
        id: Uuid,
        rate: ScaledRate,
        nonce: impl Future<Output = Result<u64, ChainError>>,
        earlier: Option<Fees>,
    ) -> Result<SignedTransaction, ChainError> {
        let input = save_input(id, rate);
        let to = TxKind::Call(self.contract);
        let (nonce, chain_id, gas, pricing, balance, ()) = tokio::try_join!(
            nonce,
            self.node.chain_id(),
            self.node.gas(self.signer.address(), to, &input),
            self.node.pricing(),
            self.node.balance(self.signer.address()),
            // An address without code accepts every call, but stores nothing.
            self.require_code(),
        )?;
        let pricing = earlier.map_or(pricing, |earlier| pricing.raise_above(earlier));
        // The node would refuse it too, but only after it is signed and recorded.
        self.require_funds(gas, pricing.fees, balance)?;
        UnsignedTransaction { chain_id, nonce, gas, pricing, to, input: input.into() }.sign(&self.signer)
    }

    fn require_funds(&self, gas: u64, fees: Fees, balance: U256) -> Result<(), ChainError> {
        let cost = U256::from(gas).saturating_mul(U256::from(fees.max_fee));
        if balance >= cost {
            return Ok(());
        }
        let sender = self.signer.address();
        Err(ChainError::Unfunded(format!("{sender} has {balance} wei, and a saving may cost {cost}; send it funds")))
    }

    /// Whether the node has this transaction, pending or in a block.
    ///
    /// # Errors
    /// Fails if the node cannot be reached.
    pub async fn has_transaction(&self, hash: Hash) -> Result<bool, ChainError> {
        Ok(self.node.transaction(hash).await?.is_some())
    }

    /// Sends a signed transaction. It may be sent any number of times.
    ///
    /// # Errors
    /// Returns [`ChainError::Unreachable`] if it may or may not have arrived. Returns [`ChainError::NonceUsed`] if a block
    /// has a transaction with its nonce: this one or another. Returns [`ChainError::Unfunded`],
    /// [`ChainError::Underpriced`] or [`ChainError::Refused`] if the node refused it.
    pub async fn send(&self, raw: &[u8]) -> Result<(), ChainError> {
        self.node.send(raw).await
    }

    async fn require_code(&self) -> Result<(), ChainError> {
        if self.node.has_code(self.contract).await? { Ok(()) } else { Err(no_contract()) }
    }

    /// Calls a view function of the contract on the latest block.
    async fn call_view<C: SolCall>(&self, call: C) -> Result<C::Return, ChainError> {
        let call = json!({ "to": self.contract, "data": encode_prefixed(call.abi_encode()) });
        let returned: Result<Data, RpcError> = self.node.call("eth_call", json!([call, "latest"])).await;
        match returned {
            // An address without code returns no data.
            Ok(Data(returned)) => C::abi_decode_returns(&returned).map_err(|_| no_contract()),
            // Our view functions never revert, so this is another contract.
            Err(RpcError::Node(refusal)) if refusal.is_revert() => Err(no_contract()),
            Err(fault) => Err(fault.into()),
        }
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain").field("sender", &self.sender()).field("contract", &self.contract).finish()
    }
}

fn save_input(id: Uuid, rate: ScaledRate) -> Vec<u8> {
    saveCall { id: id.as_u128(), rate: U256::from(rate.units()) }.abi_encode()
}

fn no_contract() -> ChainError {
    ChainError::Misconfigured(NO_CONTRACT.into())
}
