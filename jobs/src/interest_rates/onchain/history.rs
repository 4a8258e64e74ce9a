//! History of the contract's records. The current record, the last submitted one, comes first; then the others, the
//! last saved one first.
//!
//! A submission may be saved after a newer one. In the contract's own order it would be the first of the history,
//! although `current` returns the newer one.

use crate::interest_rates::{
    Rate,
    chain::{Chain, ChainError, Record},
    model::{Cursor, SavedRate},
};

/// How often to read the page and the current record. Both are read again if records were saved between the two reads.
const MAX_TRIES: u32 = 3;

/// The current record.
pub(super) async fn current(chain: &Chain) -> Result<Option<SavedRate>, ChainError> {
    Ok(chain
        .current()
        .await?
        .map(|record| to_saved_rate(&record, HistoryCursor { head: record.index, before: u64::MAX })))
}

/// At most `limit` records after a cursor.
pub(super) async fn page(chain: &Chain, after: Option<Cursor>, limit: u32) -> Result<Vec<SavedRate>, ChainError> {
    match after.map(HistoryCursor::of) {
        None => first_page(chain, limit).await,
        Some(HistoryCursor { head, before }) => {
            // One more, because the record that came first may be among them.
            let found = chain.page(Some(before), limit.saturating_add(1)).await?;
            Ok(others(&found, head).take(limit as usize).collect())
        }
    }
}

async fn first_page(chain: &Chain, limit: u32) -> Result<Vec<SavedRate>, ChainError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let found = chain.page(None, limit).await?;
        // Read after the page, so that no record of the page is newer.
        let Some(current) = chain.current().await? else { return Ok(Vec::new()) };
        let has_gap = found.first().is_none_or(|last| last.index < current.index);
        if has_gap && tries < MAX_TRIES && limit > 0 {
            continue;
        }
        let head = to_saved_rate(&current, HistoryCursor { head: current.index, before: u64::MAX });
        return Ok(std::iter::once(head).chain(others(&found, current.index)).take(limit as usize).collect());
    }
}

/// All records but the one that comes first.
fn others(found: &[Record], head: u64) -> impl Iterator<Item = SavedRate> {
    found
        .iter()
        .filter(move |record| record.index != head)
        .map(move |record| to_saved_rate(record, HistoryCursor { head, before: record.index }))
}

fn to_saved_rate(record: &Record, position: HistoryCursor) -> SavedRate {
    SavedRate { rate: Rate::from_stored(record.rate.to_decimal()), at: record.saved_at, cursor: position.into() }
}

/// The position from which a page continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HistoryCursor {
    /// The index of the record that came first; `u64::MAX` if unknown.
    head: u64,
    /// The page contains only records with a lower index.
    before: u64,
}

impl HistoryCursor {
    /// Decodes a cursor. Cursors of earlier releases have only the lower half.
    fn of(Cursor(cursor): Cursor) -> Self {
        let half = |bits: u128| u64::try_from(bits).unwrap_or(u64::MAX);
        Self { head: half(cursor >> 64).wrapping_sub(1), before: half(cursor & u128::from(u64::MAX)) }
    }
}

impl From<HistoryCursor> for Cursor {
    fn from(position: HistoryCursor) -> Self {
        Self(u128::from(position.head.wrapping_add(1)) << 64 | u128::from(position.before))
    }
}

#[cfg(test)]
mod tests {
    use hostile::proptest::prelude::*;

    use super::*;

    #[test]
    fn cursors_of_this_and_earlier_releases_are_decoded() {
        for position in [
            HistoryCursor { head: 0, before: 7 },
            HistoryCursor { head: 12, before: u64::MAX },
            HistoryCursor { head: 3, before: 0 },
        ] {
            assert_eq!(HistoryCursor::of(position.into()), position);
        }
        assert_eq!(HistoryCursor::of(Cursor(7)), HistoryCursor { head: u64::MAX, before: 7 });
    }

    #[test]
    fn hostile_cursors_are_positions() -> Result<(), hostile::Failure> {
        hostile::check((any::<u128>(), 0..128_u32), |(number, shift)| {
            let cursor = Cursor(number >> shift);
            let position = HistoryCursor::of(cursor);
            prop_assert_eq!(Cursor::from(position).0, cursor.0);
            prop_assert_eq!(HistoryCursor::of(position.into()), position);
            Ok(())
        })
    }
}
