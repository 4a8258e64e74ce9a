//! The guards of the model. A test switches one off and expects the search to find what it prevents.

/// One condition or one effect that keeps a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// A key is enqueued only while no job with it waits or runs.
    InsertKey,
    /// Only waiting jobs are claimed.
    ClaimPending,
    ClaimDue,
    /// A paused queue is not claimed from.
    ClaimPause,
    /// Each claim has a new token.
    ClaimCounts,
    /// A result counts only under the attempt of its run.
    ResultAttempt,
    /// A result counts only for the worker that holds the job.
    ResultHolder,
    ResultRunning,
    /// The jobs of an expired lease are rescued.
    Rescue,
    RescueRunning,
    /// A rescue takes only jobs of the worker whose lease expired.
    RescueHolder,
    /// A worker that has renewed its lease since the check keeps its jobs.
    RescueVersion,
    /// A rescue counts a crash.
    RescueCounts,
    /// A worker gives back claims whose response it has lost.
    GiveBack,
    GiveBackRunning,
    /// A worker gives back only jobs that it holds.
    GiveBackHolder,
    /// Only runs that the worker does not know.
    GiveBackUnknown,
    /// A run that was found lost, and no later one.
    GiveBackAttempt,
    /// The third crash ends a job without a further run.
    Quarantine,
    /// The effect of a job depends on the state of its record.
    ConditionalEffect,
    CancelPending,
    ReplayDead,
    /// A replay needs a free key.
    ReplayKey,
    /// A replay withdraws the request to cancel the job.
    ReplayWithdraws,
    DiscardKilled,
    /// Only requests of ended jobs are deleted.
    TidyEnded,
    /// Only ended jobs are deleted.
    DeleteEnded,
    /// Only jobs that ended long ago are deleted.
    DeleteOld,
}

/// The rules of a model: all guards, or all but one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    missing: Option<Guard>,
    /// Whether a search counts states as the same one if no guarded statement can tell them apart.
    pub merges: bool,
}

impl Rules {
    /// All guards.
    pub(super) const ALL: Self = Self { missing: None, merges: true };
    /// All guards, in a search that merges no states.
    pub(super) const UNMERGED: Self = Self { missing: None, merges: false };

    /// All guards but one. It may be what makes two states the same, so none are merged.
    pub(super) fn without(guard: Guard) -> Self {
        Self { missing: Some(guard), merges: false }
    }

    /// Whether the guard is switched on.
    pub(super) fn has(self, guard: Guard) -> bool {
        self.missing != Some(guard)
    }

    /// Whether the condition of a guard holds; always, if the guard is switched off.
    pub(super) fn allow(self, guard: Guard, condition: bool) -> bool {
        condition || !self.has(guard)
    }
}
