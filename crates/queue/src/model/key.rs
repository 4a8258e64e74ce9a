//! States as numbers, so that a search can remember millions of them.

use std::hash::Hasher;

use super::{
    guard::Rules,
    row::{Due, Job, Name, Status},
    state::{State, WORKERS, Work},
};

impl State {
    /// A number that identifies the state.
    ///
    /// With [`Rules::merges`], states have the same number if they differ only in the names of workers or jobs, or in what
    /// no guarded statement reads. So they have the same next states, up to such differences, which a test checks.
    pub(super) fn key(&self, rules: Rules) -> u64 {
        let [first, second] = &self.work;
        if !rules.merges {
            return self.join(0, [pack(first), pack(second)]);
        }
        let packed = [pack(&merge(first, second)), pack(&merge(second, first))];
        let keys = [(0, packed), (1, packed.map(swap_workers))];
        let [one, two] =
            keys.map(|(swapped, [first, second])| self.join(swapped, [first.min(second), first.max(second)]));
        one.min(two)
    }

    fn join(&self, swapped: Name, [first, second]: [u64; 2]) -> u64 {
        let [one, two] = [swapped, 1 - swapped].map(|worker| u64::from(self.is_alive(worker)));
        ((one * 2 + two) << (2 * WORK_BITS)) | (first << WORK_BITS) | second
    }
}

/// A job and its runs without what no guarded statement reads. `other` is the other job.
fn merge(work: &Work, other: &Work) -> Work {
    let Some(job) = work.job else {
        // Nothing can happen to a deleted job.
        let deleted = Work { effects: 0, stale: [false; WORKERS.len()], ..*work };
        return if work.was_enqueued { deleted } else { *work };
    };
    // An effect that is recorded is not recorded again. So a run that no longer holds the job can do nothing.
    let stale = if work.effects > 0 { [false; WORKERS.len()] } else { work.stale };
    // A key matters only if the other job may have it too.
    let has_key = job.has_key && (!other.was_enqueued || other.job.is_some_and(may_need_key));
    // Due times and ages are part of the steps that depend on them.
    let fresh = Job::new(Due::Now, false);
    let job = match job.status {
        // How often it has failed does not matter, once its next failure is the last one.
        Status::Pending => Job { holder: None, failures: job.failures.min(1), due: fresh.due, has_key, ..job },
        Status::Running => Job { failures: job.failures.min(1), due: fresh.due, has_key, ..job },
        Status::Done => Job { status: Status::Done, ended: job.ended, ..fresh },
        // A replay resets the other columns.
        Status::Killed | Status::Cancelled => {
            Job { status: job.status, attempts: job.attempts, replays: job.replays, ended: job.ended, has_key, ..fresh }
        }
    };
    Work { job: Some(job), stale, ..*work }
}

/// Whether a job with a key waits or runs, or may do so again.
fn may_need_key(job: Job) -> bool {
    job.has_key && job.status != Status::Done
}

/// The bits of [`pack`].
const WORK_BITS: u32 = 28;

/// Everything about a job. The last four bits depend on the numbers of the workers.
fn pack(work: &Work) -> u64 {
    let job = work.job.unwrap_or(Job::new(Due::Now, false));
    let fields = [
        (u8::from(work.was_enqueued) + u8::from(work.job.is_some()), 2),
        (work.effects, 2),
        (work.is_run.into(), 1),
        (job.status as u8, 3),
        (job.attempts, 3),
        (job.failures, 3),
        (job.crashes, 3),
        (job.replays, 1),
        (job.due as u8, 2),
        (job.ended as u8, 2),
        (job.has_key.into(), 1),
        (job.cancel_requested.into(), 1),
        (job.holder.unwrap_or(2), 2),
        (work.stale[0].into(), 1),
        (work.stale[1].into(), 1),
    ];
    fields.into_iter().fold(0, |bits, (value, width)| {
        assert!(u32::from(value) < 1 << width, "{value} has more than {width} bits: {work:?}");
        (bits << width) | u64::from(value)
    })
}

/// The bits of [`pack`] with the names of the workers swapped.
fn swap_workers(bits: u64) -> u64 {
    let holder = match (bits >> 2) & 3 {
        0 => 1,
        1 => 0,
        none => none,
    };
    let stale = ((bits & 1) << 1) | ((bits >> 1) & 1);
    (bits & !15) | (holder << 2) | stale
}

/// Hashes keys, which are numbers. The standard hasher makes a search slower.
#[derive(Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, key: u64) {
        let product = u128::from(self.0 ^ key) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}
