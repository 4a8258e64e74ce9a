//! States as numbers, so that a search can remember millions of them.

use std::hash::Hasher;

use super::{
    guard::Rules,
    row::{Due, Job, Name, Status},
    state::{State, Work},
};

impl State {
    /// A number that identifies the state.
    ///
    /// With all guards, states count as the same one if they differ only in the names of workers or jobs, or in columns
    /// that no guarded statement reads. A missing guard may read them, so then every difference counts.
    pub(super) fn key(&self, rules: Rules) -> u64 {
        if !rules.are_all() {
            let [first, second] = self.work.map(|work| pack_work(&work, 0));
            return self.join(0, first, second);
        }
        let merged = self.work.map(|work| Work { job: work.job.map(merge), ..work });
        let swaps = [0, 1].map(|swap_workers| {
            let [first, second] = merged.map(|work| pack_work(&work, swap_workers));
            self.join(swap_workers, first.min(second), first.max(second))
        });
        swaps[0].min(swaps[1])
    }

    fn join(&self, swap_workers: Name, first: u64, second: u64) -> u64 {
        let [one, two] = [swap_workers, 1 - swap_workers].map(|worker| u64::from(self.is_alive(worker)));
        let workers = (one * 2 + two) * 2 + u64::from(self.is_paused);
        (workers << (2 * WORK_BITS)) | (first << WORK_BITS) | second
    }
}

/// A job without the columns that no guarded statement reads in its status.
fn merge(job: Job) -> Job {
    let fresh = Job::new(Due::Now, false);
    match job.status {
        // How often it has failed does not matter, once its next failure is the last one.
        Status::Pending => Job { holder: None, failures: job.failures.min(1), due: job.due.min(Due::Soon), ..job },
        Status::Running => Job { failures: job.failures.min(1), ..job },
        Status::Done => Job { status: Status::Done, ended: job.ended, ..fresh },
        Status::Killed | Status::Cancelled => Job {
            status: job.status,
            attempts: job.attempts,
            replays: job.replays,
            ended: job.ended,
            has_key: job.has_key,
            ..fresh
        },
    }
}

/// The bits of [`pack_work`].
const WORK_BITS: u32 = 28;

/// Everything about a job, with the numbers of the workers swapped or not.
fn pack_work(work: &Work, swap_workers: Name) -> u64 {
    let job = work.job.unwrap_or(Job::new(Due::Now, false));
    let [one, two] = [swap_workers, 1 - swap_workers].map(|worker| work.stale[usize::from(worker)]);
    let fields = [
        (u8::from(work.was_enqueued) + u8::from(work.job.is_some()), 2),
        (work.effects, 2),
        (work.is_run.into(), 1),
        (one.into(), 1),
        (two.into(), 1),
        (job.status as u8, 3),
        (job.holder.map_or(2, |worker| worker ^ swap_workers), 2),
        (job.attempts, 3),
        (job.failures, 3),
        (job.crashes, 3),
        (job.replays, 1),
        (job.due as u8, 2),
        (job.ended as u8, 2),
        (job.has_key.into(), 1),
        (job.cancel_requested.into(), 1),
    ];
    fields.into_iter().fold(0, |bits, (value, width)| {
        assert!(u32::from(value) < 1 << width, "{value} has more than {width} bits: {work:?}");
        (bits << width) | u64::from(value)
    })
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
