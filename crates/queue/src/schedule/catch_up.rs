//! Decides which fires of a schedule are due, and what becomes of the missed ones.

use std::time::Duration;

use time::OffsetDateTime;

use super::cron::Cron;

/// The largest number of missed fires that are made up: the latest ones.
const MAX_MADE_UP: usize = 1000;
/// The largest number of nominal times that are counted. Earlier ones are not reported.
const MAX_COUNTED: usize = 10_000;

/// The policy for fires that were missed while no worker ran: `skip`, `latest` or `all`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CatchUp {
    /// They do not fire.
    Skip,
    /// The latest one fires, unless a later one is on time.
    #[default]
    Latest,
    /// All fire in order, but only the latest 1,000.
    All,
}

/// How a fire came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FireKind {
    OnTime,
    MadeUp,
    /// It was missed and is not made up.
    Skipped,
    ByHand,
}

/// A fire that will become a row of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fire {
    /// The nominal time.
    pub time: OffsetDateTime,
    pub kind: FireKind,
    /// The number of nominal times before this one that do not fire.
    pub passed_over: usize,
}

impl CatchUp {
    const ALL: [Self; 3] = [Self::Skip, Self::Latest, Self::All];

    /// The name of the policy.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Latest => "latest",
            Self::All => "all",
        }
    }

    /// Parses the name of a policy.
    ///
    /// # Errors
    /// A description of the valid names.
    pub fn parse(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|policy| policy.as_str() == text);
        found.ok_or_else(|| "must be skip, latest or all, such as latest".into())
    }

    /// Plans the nominal times after `last` and not after `now`. Those no older than `late` are on time and fire under
    /// every policy. So a worker that was busy, restarted, or briefly without a database has missed nothing.
    pub fn plan(self, cron: &Cron, last: OffsetDateTime, now: OffsetDateTime, late: Duration) -> Vec<Fire> {
        let mut missed = cron.between(last, now, MAX_COUNTED);
        let on_time = missed.split_off(missed.partition_point(|time| *time < now - late));
        let made_up = match self {
            Self::Skip => Vec::new(),
            Self::Latest if !on_time.is_empty() => Vec::new(),
            Self::Latest => missed.split_off(missed.len().saturating_sub(1)),
            Self::All => missed.split_off(missed.len().saturating_sub(MAX_MADE_UP)),
        };
        let fire = |kind| move |time| Fire { time, kind, passed_over: 0 };
        let made_up = made_up.into_iter().map(fire(FireKind::MadeUp));
        let mut fires: Vec<Fire> = made_up.chain(on_time.into_iter().map(fire(FireKind::OnTime))).collect();
        match (fires.first_mut(), missed.last()) {
            (Some(first), _) => first.passed_over = missed.len(),
            // Recorded, so that it is not planned again.
            (None, Some(time)) => {
                fires.push(Fire { time: *time, kind: FireKind::Skipped, passed_over: missed.len().saturating_sub(1) });
            }
            (None, None) => {}
        }
        fires
    }
}

impl FireKind {
    /// The value of the column `kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnTime => "on_time",
            Self::MadeUp => "made_up",
            Self::Skipped => "skipped",
            Self::ByHand => "by_hand",
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const LATE: Duration = Duration::from_secs(90);
    const LAST: OffsetDateTime = datetime!(2026-11-21 10:00 UTC);

    fn plan(policy: CatchUp, cron: &str, now: OffsetDateTime) -> Vec<(String, FireKind, usize)> {
        let fires = policy.plan(&Cron::parse(cron).expect(cron), LAST, now, LATE);
        fires.iter().map(|fire| (fire.time.time().to_string(), fire.kind, fire.passed_over)).collect()
    }

    fn one(time: &str, kind: FireKind, passed_over: usize) -> Vec<(String, FireKind, usize)> {
        vec![(time.into(), kind, passed_over)]
    }

    #[test]
    fn on_time_fires_under_every_policy() {
        for policy in CatchUp::ALL {
            assert_eq!(plan(policy, "0 0 * * * *", datetime!(2026-11-21 10:59:59.9 UTC)), []);
            for now in [datetime!(2026-11-21 11:00 UTC), datetime!(2026-11-21 11:01:30 UTC)] {
                assert_eq!(plan(policy, "0 0 * * * *", now), one("11:00:00.0", FireKind::OnTime, 0));
            }
            assert_eq!(plan(policy, "* * * * * *", datetime!(2026-11-21 10:00:30 UTC)).len(), 30);
        }
    }

    #[test]
    fn missed_fires_are_made_up_by_policy() {
        let now = datetime!(2026-11-21 13:30 UTC);
        assert_eq!(plan(CatchUp::Skip, "0 0 * * * *", now), one("13:00:00.0", FireKind::Skipped, 2));
        assert_eq!(plan(CatchUp::Latest, "0 0 * * * *", now), one("13:00:00.0", FireKind::MadeUp, 2));
        let all = plan(CatchUp::All, "0 0 * * * *", now);
        assert_eq!(all.iter().map(|(time, ..)| &time[..2]).collect::<Vec<_>>(), ["11", "12", "13"]);
        assert!(all.iter().all(|(_, kind, passed_over)| (*kind, *passed_over) == (FireKind::MadeUp, 0)));
    }

    #[test]
    fn a_fire_on_time_replaces_earlier_missed_ones() {
        let now = datetime!(2026-11-21 13:00:20 UTC);
        for policy in [CatchUp::Skip, CatchUp::Latest] {
            assert_eq!(plan(policy, "0 0 * * * *", now), one("13:00:00.0", FireKind::OnTime, 2));
        }
        let kinds: Vec<FireKind> = plan(CatchUp::All, "0 0 * * * *", now).iter().map(|(_, kind, _)| *kind).collect();
        assert_eq!(kinds, [FireKind::MadeUp, FireKind::MadeUp, FireKind::OnTime]);
    }

    #[test]
    fn made_up_fires_are_limited() {
        let now = datetime!(2026-11-21 11:00 UTC);
        let all = plan(CatchUp::All, "* * * * * *", now);
        // The latest 91 are on time, the 1,000 before them are made up, and the rest is counted.
        assert_eq!((all.len(), all[0].2), (1091, 3600 - 1091));
        assert_eq!(plan(CatchUp::Latest, "* * * * * *", now)[0].2, 3600 - 91);
        let long = CatchUp::Skip.plan(&Cron::parse("* * * * * *").expect("cron"), LAST, now + LATE * 10_000, LATE);
        assert!(long.len() <= 91 && long[0].passed_over <= MAX_COUNTED);
    }
}
