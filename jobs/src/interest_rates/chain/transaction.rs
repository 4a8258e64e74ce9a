//! Transactions as they are recorded, sent and asked for; and how they are signed.

use std::fmt;

use alloy::{
    consensus::{SignableTransaction, TxEip1559, TxLegacy},
    eips::eip2718::Encodable2718 as _,
    primitives::{Bytes, Signature, TxKind, U256},
    signers::{SignerSync as _, local::PrivateKeySigner},
};

use super::{contract::Record, error::ChainError};

/// The hash by which a node knows a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a transaction pays for a unit of gas, in wei.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fees {
    /// In all, at most.
    pub max_fee: u128,
    /// Of it to whoever makes the block.
    pub priority: u128,
}

impl Fees {
    /// These, but each at least an eighth above `earlier`: a node replaces a transaction from 10 % on.
    pub fn above(self, earlier: Self) -> Self {
        let raised = |fee: u128| fee.saturating_add(fee.div_ceil(8)).saturating_add(1);
        Self {
            max_fee: self.max_fee.max(raised(earlier.max_fee)),
            priority: self.priority.max(raised(earlier.priority)),
        }
    }
}

/// What a chain takes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pricing {
    pub fees: Fees,
    /// Whether it knows base fees and priority fees (EIP-1559). Otherwise a transaction has one price for its gas, which
    /// is then both of [`Fees`].
    pub has_base_fee: bool,
}

impl Pricing {
    /// These, but each at least an eighth above `earlier`.
    pub fn above(self, earlier: Fees) -> Self {
        Self { fees: self.fees.above(earlier), ..self }
    }
}

/// A signed transaction that has not been sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Prepared {
    pub nonce: u64,
    pub hash: Hash,
    /// What is sent, as often as need be: it can be applied once.
    pub raw: Vec<u8>,
    pub fees: Fees,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Prepared");
        shown.field("nonce", &self.nonce).field("hash", &self.hash).field("fees", &self.fees).finish_non_exhaustive()
    }
}

/// A transaction that may have been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    pub nonce: u64,
    pub hash: Hash,
}

/// A transaction in a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub hash: Hash,
    pub block: u64,
    /// Whether it did what it was sent for; otherwise it has only cost its fee.
    pub succeeded: bool,
    /// What it has saved.
    pub saved: Option<Record>,
}

/// What became of the transactions of one submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// One of them is in a block and has succeeded.
    Confirmed(Receipt),
    /// One of them is in a block and was refused by the contract, and none is on its way.
    Reverted(ChainError),
    /// The node has one of them, in no block so far.
    Waiting,
    /// The node knows none of them, and a nonce of theirs is free: send the same bytes again.
    Dropped,
    /// The node knows none of them, and their nonces have been used by others: none of them can ever be applied.
    Superseded,
}

/// Everything of a transaction but its signature.
pub struct Draft {
    pub chain_id: u64,
    pub nonce: u64,
    pub gas: u64,
    pub pricing: Pricing,
    pub to: TxKind,
    pub input: Bytes,
}

impl Draft {
    /// Signs it, in the form that the chain takes.
    pub fn sign(self, signer: &PrivateKeySigner) -> Result<Prepared, ChainError> {
        let Self { chain_id, nonce, gas, pricing: Pricing { fees, has_base_fee }, to, input } = self;
        let (hash, raw) = if has_base_fee {
            let transaction = TxEip1559 {
                chain_id,
                nonce,
                gas_limit: gas,
                max_fee_per_gas: fees.max_fee,
                max_priority_fee_per_gas: fees.priority,
                to,
                value: U256::ZERO,
                access_list: Default::default(),
                input,
            };
            let signed = signature(&transaction, signer).map(|signature| transaction.into_signed(signature))?;
            (*signed.hash(), signed.encoded_2718())
        } else {
            let transaction = TxLegacy {
                // It is signed as well, so that nothing can be replayed on another chain (EIP-155).
                chain_id: Some(chain_id),
                nonce,
                gas_price: fees.max_fee,
                gas_limit: gas,
                to,
                value: U256::ZERO,
                input,
            };
            let signed = signature(&transaction, signer).map(|signature| transaction.into_signed(signature))?;
            (*signed.hash(), signed.encoded_2718())
        };
        Ok(Prepared { nonce, hash: Hash(hash.0), raw, fees })
    }
}

fn signature(
    transaction: &impl SignableTransaction<Signature>,
    signer: &PrivateKeySigner,
) -> Result<Signature, ChainError> {
    let signature = signer.sign_hash_sync(&transaction.signature_hash());
    signature.map_err(|_| ChainError::Refused("the key does not sign".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacements_pay_an_eighth_more_at_least() {
        let fees = |max_fee, priority| Fees { max_fee, priority };
        assert_eq!(fees(10, 1).above(fees(1000, 100)), fees(1126, 114));
        assert_eq!(fees(5000, 1).above(fees(1000, 100)), fees(5000, 114));
        assert_eq!(fees(0, 0).above(fees(0, 0)), fees(1, 1));
        assert_eq!(fees(0, 0).above(fees(u128::MAX, 9)), fees(u128::MAX, 12));
    }

    #[test]
    fn hashes_are_written_as_everywhere() {
        let mut hash = [0; 32];
        hash[0] = 0xab;
        hash[31] = 1;
        assert_eq!(Hash(hash).to_string(), format!("0xab{}01", "0".repeat(60)));
    }
}
