//! Known bugs that the proof plants, to show that it finds them. A build without the feature `sabotage` has none of them.

use strum::{EnumString, IntoStaticStr, VariantNames};

/// The variable with the name of the planted bug.
pub const VARIABLE: &str = "MILLRACE_SABOTAGE";

/// A bug that breaks a promise. The names are those of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub enum Bug {
    /// A webhook is acknowledged before its commit.
    AcknowledgeBeforeCommit,
    /// A result is written by a worker that no longer holds the job.
    FenceDropped,
    /// A schedule creates the jobs of one fire twice.
    ScheduleFiredTwice,
    /// A result is written by the worker that holds the job, but for a later run than the one that ended.
    ResultWithoutToken,
    /// A listener that is connected again does not look for what it missed.
    NoRecheckAfterListen,
    /// A worker claims jobs although its lease has expired.
    LeaseKeptOverFreeze,
    /// A job that failed runs again at once.
    RetrySkipsBackoff,
    /// A conflicting webhook is acknowledged, and not recorded.
    ConflictSwallowed,
    /// A transaction that is settled is settled again.
    SettlementNotConditional,
    /// The jobs of a worker that renews its lease are taken from it.
    RescueOfLiveWorker,
}

impl Bug {
    /// The names of all bugs.
    pub const NAMES: &'static [&'static str] = <Self as VariantNames>::VARIANTS;

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Whether this build can have bugs.
pub const IS_POSSIBLE: bool = cfg!(feature = "sabotage");

/// Whether this process has this bug.
#[cfg(feature = "sabotage")]
pub fn planted(bug: Bug) -> bool {
    static PLANTED: std::sync::LazyLock<Option<Bug>> =
        std::sync::LazyLock::new(|| std::env::var(VARIABLE).ok()?.parse().ok());
    *PLANTED == Some(bug)
}

/// Whether this process has this bug: never.
#[cfg(not(feature = "sabotage"))]
pub const fn planted(_: Bug) -> bool {
    false
}
