//! The order in which the contract's records are shown: the current one first, which is the one submitted last, and then
//! the others, the last saved first.
//!
//! A submission that was saved late, after a newer one, is not the current one. In the contract's own order it would
//! be the first of the history, while `current` shows the newer one.

use crate::interest_rates::{
    Rate,
    chain::{Chain, ChainError, Record},
    model::{Cursor, Reading},
};

/// Between the page and the current record others may be saved; then both are read again, so often at most.
const TRIES: u32 = 3;

/// The newest one.
pub async fn current(chain: &Chain) -> Result<Option<Reading>, ChainError> {
    Ok(chain.current().await?.map(|record| reading(&record, Place { head: record.index, before: u64::MAX })))
}

/// At most `limit` of those after a cursor.
pub async fn page(chain: &Chain, after: Option<Cursor>, limit: u32) -> Result<Vec<Reading>, ChainError> {
    match after.map(Place::of) {
        None => first_page(chain, limit).await,
        Some(Place { head, before }) => {
            // One more, since the one that was shown first may be among them.
            let found = chain.page(Some(before), limit.saturating_add(1)).await?;
            Ok(rest(&found, head).take(limit as usize).collect())
        }
    }
}

async fn first_page(chain: &Chain, limit: u32) -> Result<Vec<Reading>, ChainError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let found = chain.page(None, limit).await?;
        // Read second, so that no record of the page is newer.
        let Some(current) = chain.current().await? else { return Ok(Vec::new()) };
        let has_gap = found.first().is_none_or(|last| last.index < current.index);
        if has_gap && tries < TRIES && limit > 0 {
            continue;
        }
        let head = reading(&current, Place { head: current.index, before: u64::MAX });
        return Ok(std::iter::once(head).chain(rest(&found, current.index)).take(limit as usize).collect());
    }
}

/// All but the one that is shown first.
fn rest(found: &[Record], head: u64) -> impl Iterator<Item = Reading> {
    found
        .iter()
        .filter(move |record| record.index != head)
        .map(move |record| reading(record, Place { head, before: record.index }))
}

fn reading(record: &Record, place: Place) -> Reading {
    Reading { rate: Rate::stored(record.rate.to_decimal()), at: record.saved_at, cursor: place.into() }
}

/// Where the history goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// The record that was shown first; `u64::MAX` when that is not known.
    head: u64,
    /// Behind all records from this place on.
    before: u64,
}

impl Place {
    /// Reads a cursor. In those of earlier releases only the lower half is set.
    fn of(Cursor(cursor): Cursor) -> Self {
        let half = |bits: u128| u64::try_from(bits).unwrap_or(u64::MAX);
        Self { head: half(cursor >> 64).wrapping_sub(1), before: half(cursor & u128::from(u64::MAX)) }
    }
}

impl From<Place> for Cursor {
    fn from(place: Place) -> Self {
        Self(u128::from(place.head.wrapping_add(1)) << 64 | u128::from(place.before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_keep_both_places_and_earlier_ones_are_read() {
        for place in [Place { head: 0, before: 7 }, Place { head: 12, before: u64::MAX }, Place { head: 3, before: 0 }]
        {
            assert_eq!(Place::of(place.into()), place);
        }
        assert_eq!(Place::of(Cursor(7)), Place { head: u64::MAX, before: 7 });
    }
}
