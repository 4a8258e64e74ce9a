//! The contract's functions, errors and event, as its source declares them, and what we read from them.

use alloy::{
    primitives::{B256, Bytes, U256},
    sol,
    sol_types::{SolEvent as _, SolInterface as _},
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{error::ChainError, scaled::Scaled};

sol!("../contracts/InterestRates.sol");

pub use InterestRates::{
    InterestRatesErrors, Record as Kept, Saved, currentCall, findCall, ownerCall, pageCall, saveCall,
};

/// What an address without our contract is said to be.
pub const NOT_OURS: &str = "there is no contract of ours at CONTRACT_ADDRESS";

/// One rate on the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place, counted from 0 in the order of saving.
    pub index: u64,
    pub id: Uuid,
    pub rate: Scaled,
    /// The time of its block.
    pub saved_at: OffsetDateTime,
}

impl Record {
    /// Reads what a view returned.
    pub fn of(index: U256, kept: &Kept) -> Result<Self, ChainError> {
        Self::read(index, kept.id, kept.rate, kept.savedAt)
    }

    /// Reads the event of a saving.
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
            rate: Scaled::from_units(units).map_err(|_| beyond("rate"))?,
            saved_at: OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| beyond("time"))?,
        })
    }
}

/// What the data of a revert means, if it is one of the contract's own errors.
pub fn refusal(data: &[u8]) -> Option<ChainError> {
    match InterestRatesErrors::abi_decode(data).ok()? {
        InterestRatesErrors::AlreadySaved(_) => Some(ChainError::AlreadySaved),
        InterestRatesErrors::NotOwner(_) => Some(not_owner()),
    }
}

/// The key is another one's.
pub fn not_owner() -> ChainError {
    ChainError::Misconfigured("the contract's owner is not the account of CHAIN_PRIVATE_KEY".into())
}
