//! What a queue shares its slots by.

use sha2::{Digest, Sha256};

/// What a queue shares its slots by, such as a sender or a destination. It is stored as a hash: two names have the same one
/// with a probability of 1 : 10^19, and would then share what each of them gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FairKey(i64);

impl FairKey {
    /// The least key. Walks over all keys begin below it.
    pub(crate) const LEAST: Self = Self(i64::MIN + 1);

    /// The key of this name.
    pub fn of(name: &str) -> Self {
        let hash = Sha256::digest(name);
        let number = hash.iter().take(8).fold(0, |number: i64, byte| (number << 8) | i64::from(*byte));
        Self(number).max(Self::LEAST)
    }

    /// The number under which it is stored.
    pub const fn number(self) -> i64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::FairKey;

    /// Processes of different releases must agree.
    #[test]
    fn a_key_is_the_beginning_of_a_hash() {
        assert_eq!(FairKey::of("abc").number(), 0xba78_16bf_8f01_cfea_u64.cast_signed());
        assert_ne!(FairKey::of("acme"), FairKey::of("beta"));
    }
}
