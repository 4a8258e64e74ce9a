//! The low-water marks of a queue: the due times at which claims and polls begin to read the index of waiting jobs.
//!
//! A claim leaves a dead entry in that index for each job. PostgreSQL removes it, unless an older snapshot is still open,
//! such as that of a forgotten transaction. Claims that begin with the oldest entry then read all dead entries again
//! (11 → 64 us per job after 200,000 jobs). So each claim begins where the one before it ended.
//!
//! A job may appear below its mark: its transaction took long, it was given back or replayed, or the database's clock
//! was set back. The sweep of [`Poller`](crate::poller::Poller) finds such jobs and lowers the mark.

use std::{sync::Mutex, time::Duration};

use time::OffsetDateTime;

use super::job::Priority;
use runtime::mutex::lock;

/// How far a mark stays behind the last claimed job or the last poll. A job is due at the start of its transaction, and
/// most transactions commit sooner than this, so the sweep seldom finds any.
const MARGIN: Duration = Duration::from_secs(1);

/// The marks of the three priorities, the highest first; `None` begins with the oldest job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Marks([Option<OffsetDateTime>; 3]);

impl Marks {
    /// The mark of jobs with this priority.
    pub(crate) fn of(&self, priority: Priority) -> Option<OffsetDateTime> {
        self.0[place(priority.level())]
    }
}

/// The marks of one queue, shared by its claimer and the poller.
#[derive(Debug, Default)]
pub(crate) struct LowWater(Mutex<Marks>);

impl LowWater {
    /// The marks at which a statement begins.
    pub(crate) fn get(&self) -> Marks {
        *lock(&self.0)
    }

    /// Raises the marks after a claim that began at `from`, by the priorities and due times of its jobs. With
    /// `is_backlog`, more jobs are due: then no margin is kept, because one second may have as many dead entries as jobs
    /// are claimed in a second.
    pub(crate) fn claimed(
        &self,
        from: Marks,
        jobs: impl Iterator<Item = (i32, Option<OffsetDateTime>)>,
        is_backlog: bool,
    ) {
        let mut last = [None; 3];
        for (priority, due) in jobs {
            let last = &mut last[place(priority)];
            *last = due.max(*last);
        }
        let margin = if is_backlog { Duration::ZERO } else { MARGIN };
        self.raise(from, last.map(|due| due.and_then(|due| due.checked_sub(margin.try_into().ok()?))));
    }

    /// Raises the marks after a poll that began at `from` and found no due job at the time `now` of the database.
    pub(crate) fn nothing_due(&self, from: Marks, now: OffsetDateTime) {
        let to = MARGIN.try_into().ok().and_then(|margin| now.checked_sub(margin));
        self.raise(from, [to; 3]);
    }

    /// Raises each mark that is still what it was at the start of the statement. A lowered one must stay, because the
    /// statement has not read below its own start.
    fn raise(&self, from: Marks, to: [Option<OffsetDateTime>; 3]) {
        let mut marks = lock(&self.0);
        for ((mark, from), to) in marks.0.iter_mut().zip(from.0).zip(to) {
            if *mark == from {
                *mark = to.max(from);
            }
        }
    }

    /// Lowers a mark to the due time of a job that the sweep found; `None` lowers it to the oldest job.
    pub(crate) fn lower(&self, priority: i32, to: Option<OffsetDateTime>) {
        let mut marks = lock(&self.0);
        let mark = &mut marks.0[place(priority)];
        *mark = to.min(*mark);
    }
}

/// The place of a priority in [`Marks`], the highest first.
pub(crate) fn place(priority: i32) -> usize {
    match priority {
        1 => 0,
        0 => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const START: OffsetDateTime = datetime!(2026-01-01 00:00 UTC);

    fn at(seconds: u64) -> OffsetDateTime {
        START + Duration::from_secs(seconds)
    }

    fn normal(marks: Marks) -> Option<OffsetDateTime> {
        marks.of(Priority::Normal)
    }

    #[test]
    fn a_mark_follows_the_last_claimed_job_of_its_priority() {
        let low_water = LowWater::default();
        let jobs = [(0, Some(at(10))), (0, Some(at(12))), (1, Some(at(20)))];
        low_water.claimed(low_water.get(), jobs.into_iter(), false);
        assert_eq!(normal(low_water.get()), Some(at(11)));
        assert_eq!(low_water.get().of(Priority::High), Some(at(19)));
        assert_eq!(low_water.get().of(Priority::Low), None, "no job of this priority was claimed");
        low_water.claimed(low_water.get(), [(0, Some(at(15)))].into_iter(), true);
        assert_eq!(normal(low_water.get()), Some(at(15)), "a backlog has no margin");
        low_water.claimed(low_water.get(), [(0, Some(at(13))), (0, None)].into_iter(), true);
        assert_eq!(normal(low_water.get()), Some(at(15)), "a claim never lowers a mark");
    }

    #[test]
    fn a_mark_that_is_lowered_during_a_claim_stays() {
        let low_water = LowWater::default();
        low_water.nothing_due(low_water.get(), at(101));
        let from = low_water.get();
        assert_eq!(normal(from), Some(at(100)));
        low_water.lower(0, Some(at(50)));
        low_water.claimed(from, [(0, Some(at(110)))].into_iter(), false);
        low_water.nothing_due(from, at(120));
        assert_eq!(normal(low_water.get()), Some(at(50)), "the claim has not read the job at 50");
        low_water.claimed(low_water.get(), [(0, Some(at(111)))].into_iter(), false);
        assert_eq!(normal(low_water.get()), Some(at(110)));
        low_water.lower(0, None);
        assert_eq!(normal(low_water.get()), None);
    }
}
