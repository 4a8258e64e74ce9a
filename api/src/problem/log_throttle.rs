//! Counts causes of failures that come again and again: while a disk is full, every request fails for the same reason, and
//! one line for each would fill the next disk.

use std::time::{Duration, Instant};

/// A cause is logged once in this time, with the number of times that it was left out since.
const WINDOW: Duration = Duration::from_secs(10);
/// Different causes that are known at once; each further one replaces the oldest.
const CAUSES: usize = 8;

/// Which causes were logged lately.
#[derive(Debug, Default)]
pub(super) struct Repeats(Vec<Repeated>);

#[derive(Debug)]
struct Repeated {
    cause: String,
    logged: Instant,
    left_out: u64,
}

impl Repeats {
    /// None known.
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Whether to log this cause now: `Some` with the number of times that it was left out before.
    pub(super) fn see(&mut self, cause: &str, now: Instant) -> Option<u64> {
        match self.0.iter_mut().find(|known| known.cause == cause) {
            Some(known) if now.duration_since(known.logged) < WINDOW => {
                known.left_out += 1;
                None
            }
            Some(known) => {
                known.logged = now;
                Some(std::mem::take(&mut known.left_out))
            }
            None => {
                if self.0.len() == CAUSES {
                    let oldest = self.0.iter().enumerate().min_by_key(|(_, known)| known.logged);
                    if let Some((oldest, _)) = oldest {
                        self.0.swap_remove(oldest);
                    }
                }
                self.0.push(Repeated { cause: cause.to_owned(), logged: now, left_out: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_equal_cause_is_logged_once_in_a_while_and_counted() {
        let (mut repeats, begun) = (Repeats::new(), Instant::now());
        let logged: Vec<u64> =
            (0..12_000u64).filter_map(|n| repeats.see("disk full", begun + Duration::from_millis(n * 2))).collect();
        assert_eq!(logged, [0, 4999, 4999], "24 s");
        assert_eq!(repeats.see("refused", begun), Some(0), "another cause has a line of its own");
        for n in 0..100 {
            assert_eq!(repeats.see(&format!("cause {n}"), begun + Duration::from_secs(60 + n)), Some(0));
        }
        assert_eq!(repeats.0.len(), CAUSES);
    }
}
