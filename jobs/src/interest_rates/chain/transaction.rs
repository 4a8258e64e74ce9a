//! Transactions: fees, signing, receipts and outcomes.

use std::fmt;

use alloy::{
    consensus::{SignableTransaction as _, TxEip1559, TxLegacy, TypedTransaction},
    eips::eip2718::Encodable2718 as _,
    primitives::{Address, B256, Bytes, TxKind, U256},
    signers::{SignerSync as _, local::PrivateKeySigner},
};

use super::{contract::Record, error::ChainError};

/// The hash that identifies a transaction.
pub type Hash = B256;

/// The fees of a transaction per unit of gas, in wei.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fees {
    /// The upper limit of the whole fee.
    pub max_fee: u128,
    /// The part that goes to the block's producer.
    pub priority: u128,
}

impl Fees {
    /// Raises each of these fees to at least 12.5 % above `earlier`. Nodes accept a replacement that pays 10 % more.
    pub fn raise_above(self, earlier: Self) -> Self {
        let raised = |fee: u128| fee.saturating_add(fee.div_ceil(8)).saturating_add(1);
        Self {
            max_fee: self.max_fee.max(raised(earlier.max_fee)),
            priority: self.priority.max(raised(earlier.priority)),
        }
    }
}

/// The current fees of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pricing {
    pub fees: Fees,
    /// Whether the chain has base fees and priority fees (EIP-1559). Otherwise a transaction has one gas price, and
    /// both [`Fees`] are equal to it.
    pub has_base_fee: bool,
}

impl Pricing {
    /// Raises the fees as [`Fees::raise_above`] does.
    pub(super) fn raise_above(self, earlier: Fees) -> Self {
        Self { fees: self.fees.raise_above(earlier), ..self }
    }
}

/// A signed transaction.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedTransaction {
    pub nonce: u64,
    pub hash: Hash,
    /// The bytes to send. They may be sent any number of times, since a transaction takes effect once.
    pub raw: Vec<u8>,
    pub fees: Fees,
}

impl fmt::Debug for SignedTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("SignedTransaction");
        shown.field("nonce", &self.nonce).field("hash", &self.hash).field("fees", &self.fees).finish_non_exhaustive()
    }
}

/// A transaction that may have been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentTransaction {
    pub nonce: u64,
    pub hash: Hash,
}

/// A transaction in a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub hash: Hash,
    pub block: u64,
    /// Whether it succeeded. A reverted transaction only costs its fee.
    pub succeeded: bool,
    /// The record that it saved.
    pub saved: Option<Record>,
    /// The contract that it created.
    pub created: Option<Address>,
}

/// The outcome of the transactions of one submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A block includes one of them, and it succeeded.
    Confirmed(Receipt),
    /// Blocks include `count` of them, all of which were reverted, the last one for this reason. The others can no
    /// longer take effect.
    Reverted { count: usize, reason: ChainError },
    /// The node has one of them, but no block includes it yet.
    Waiting,
    /// None is pending, and the nonce of the last one is unused: send its bytes again.
    Dropped,
    /// The node has none of them, and other transactions have used their nonces: none of them can take effect.
    Superseded,
}

/// A transaction without its signature.
pub(super) struct UnsignedTransaction {
    pub chain_id: u64,
    pub nonce: u64,
    pub gas: u64,
    pub pricing: Pricing,
    pub to: TxKind,
    pub input: Bytes,
}

impl UnsignedTransaction {
    /// Signs it in the format of the chain: EIP-1559, or legacy if there are no base fees.
    pub(super) fn sign(self, signer: &PrivateKeySigner) -> Result<SignedTransaction, ChainError> {
        let Self { chain_id, nonce, gas, pricing: Pricing { fees, has_base_fee }, to, input } = self;
        let transaction: TypedTransaction = if has_base_fee {
            TxEip1559 {
                chain_id,
                nonce,
                gas_limit: gas,
                max_fee_per_gas: fees.max_fee,
                max_priority_fee_per_gas: fees.priority,
                to,
                value: U256::ZERO,
                access_list: Default::default(),
                input,
            }
            .into()
        } else {
            TxLegacy {
                // The signature covers it, so that it cannot be replayed on another chain (EIP-155).
                chain_id: Some(chain_id),
                nonce,
                gas_price: fees.max_fee,
                gas_limit: gas,
                to,
                value: U256::ZERO,
                input,
            }
            .into()
        };
        let signature = signer.sign_hash_sync(&transaction.signature_hash());
        let signed =
            transaction.into_signed(signature.map_err(|_| ChainError::Refused("the key does not sign".into()))?);
        Ok(SignedTransaction { nonce, hash: *signed.hash(), raw: signed.encoded_2718(), fees })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacements_pay_at_least_12_5_percent_more() {
        let fees = |max_fee, priority| Fees { max_fee, priority };
        assert_eq!(fees(10, 1).raise_above(fees(1000, 100)), fees(1126, 114));
        assert_eq!(fees(5000, 1).raise_above(fees(1000, 100)), fees(5000, 114));
        assert_eq!(fees(0, 0).raise_above(fees(0, 0)), fees(1, 1));
        assert_eq!(fees(0, 0).raise_above(fees(u128::MAX, 9)), fees(u128::MAX, 12));
    }

    #[test]
    fn hashes_are_formatted_as_hexadecimal() {
        let mut hash = Hash::ZERO;
        hash[0] = 0xab;
        hash[31] = 1;
        assert_eq!(hash.to_string(), format!("0xab{}01", "0".repeat(60)));
    }
}
