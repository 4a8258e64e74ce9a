//! ABI of the contract, generated from its source, and the conversion of its records and errors.

use alloy::{
    primitives::{B256, Bytes, U256},
    sol,
    sol_types::{SolEvent as _, SolInterface as _},
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{error::ChainError, scaled::ScaledRate};

sol!("../contracts/InterestRates.sol");

pub(super) use InterestRates::{
    InterestRatesErrors, Record as StoredRecord, Saved, currentCall, findCall, ownerCall, pageCall, saveCall,
};

/// The error text for an address without our contract.
pub(super) const NO_CONTRACT: &str = "there is no contract of ours at CONTRACT_ADDRESS";

/// One rate on the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its position in the order of saving, from 0.
    pub index: u64,
    pub id: Uuid,
    pub rate: ScaledRate,
    /// The time of its block.
    pub saved_at: OffsetDateTime,
}

impl Record {
    /// Converts a record that a view function returned.
    pub fn of(index: U256, stored: &StoredRecord) -> Result<Self, ChainError> {
        Self::read(index, stored.id, stored.rate, stored.savedAt)
    }

    /// Decodes the event that the contract emits for a saved rate.
    pub fn of_log(topics: &[B256], data: &Bytes) -> Option<Self> {
        let saved = Saved::decode_raw_log(topics.iter().copied(), data).ok()?;
        Self::read(saved.index, saved.id, saved.rate, saved.savedAt).ok()
    }

    fn read(index: U256, id: u128, rate: U256, saved_at: u64) -> Result<Self, ChainError> {
        let beyond = |what: &str| ChainError::Misconfigured(format!("the contract has a {what} beyond our range"));
        let units = u128::try_from(rate).map_err(|_| beyond("rate"))?;
        let seconds = i64::try_from(saved_at).map_err(|_| beyond("time"))?;
        Ok(Self {
            index: u64::try_from(index).map_err(|_| beyond("place"))?,
            id: Uuid::from_u128(id),
            rate: ScaledRate::from_units(units).map_err(|_| beyond("rate"))?,
            saved_at: OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| beyond("time"))?,
        })
    }
}

/// Decodes the data of a revert; `None` if it is not an error of the contract.
pub(super) fn decode_revert(data: &[u8]) -> Option<ChainError> {
    match InterestRatesErrors::abi_decode(data).ok()? {
        InterestRatesErrors::AlreadySaved(_) => Some(ChainError::AlreadySaved),
        InterestRatesErrors::NotOwner(_) => Some(not_owner()),
    }
}

/// The error for a key that is not the owner's.
pub(super) fn not_owner() -> ChainError {
    ChainError::Misconfigured("the contract's owner is not the account of CHAIN_PRIVATE_KEY".into())
}
