//! Why the jobs of a queue wait, or would wait: ordered checks, computed from its overview.

use super::{overview::QueueOverview, why::Check};
use crate::status::format_duration;

impl QueueOverview {
    /// The checks in the order in which they decide. A failed one has the command that corrects it, if there is one.
    pub fn checks(&self) -> Vec<Check> {
        let mut checks = vec![self.check_due(), self.check_pause(), self.check_workers()];
        if self.status.workers > 0 {
            checks.push(self.check_claims());
        }
        checks.extend(self.check_slots());
        checks.extend(self.check_drain());
        checks
    }

    fn check_due(&self) -> Check {
        let status = &self.status;
        Check::ok(match status.late {
            None => "no job waits".to_owned(),
            Some(late) if late < 0.0 => format!("no job is due; the next one is due in {}", format_duration(-late)),
            Some(late) => {
                let due = format!("{}{}", status.depth_is.sign(status.due), status.due);
                format!("jobs that are due: {due}, the oldest for {}", format_duration(late))
            }
        })
    }

    fn check_pause(&self) -> Check {
        let status = &self.status;
        if status.paused_at.is_none() {
            return Check::ok("it is not paused");
        }
        let by = status.paused_by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
        let reason = status.reason.as_deref().unwrap_or("no reason is recorded");
        let fix = format!("millrace queues resume {} --reason '…'", status.name);
        Check::failed(format!("it is paused{by}: {reason}"), Some(fix))
    }

    fn check_workers(&self) -> Check {
        match self.status.workers {
            0 => Check::failed("no live worker runs it", Some("start a worker: millrace worker".into())),
            workers => Check::ok(format!("live workers that run it: {workers}")),
        }
    }

    fn check_claims(&self) -> Check {
        let (failing, workers) = (self.status.failing_workers, self.status.workers);
        let error = self.status.claim_error.as_deref().unwrap_or("no error is recorded");
        match failing {
            0 => Check::ok("their claims succeed"),
            failing if failing >= workers => {
                Check::failed(format!("all their claims fail in the database: {error}"), Some("millrace doctor".into()))
            }
            failing => Check::ok(format!("the claims of {failing} of them fail: {error}")),
        }
    }

    /// `None` while no worker has reported its slots.
    fn check_slots(&self) -> Option<Check> {
        let (running, slots) = (self.status.running, i64::from(self.slots));
        if slots == 0 {
            return None;
        }
        Some(if running >= slots && self.status.due > 0 {
            let fix = "start another worker: millrace worker".into();
            Check::failed(format!("all {slots} slots are in use"), Some(fix))
        } else {
            Check::ok(format!("{} of {slots} slots are free", (slots - running).max(0)))
        })
    }

    /// `None` unless a job has been due for some seconds.
    fn check_drain(&self) -> Option<Check> {
        if let Some(seconds) = self.drained_in_seconds {
            return Some(Check::ok(format!("no due job is left in {}", format_duration(seconds))));
        }
        let growth = self.growing_by_per_second?;
        Some(Check::failed(format!("due jobs do not get fewer: +{growth:.2}/s"), Some("millrace scale".into())))
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::super::overview::{estimate, tests::queue};
    use super::*;

    fn failed(overview: &QueueOverview) -> Vec<String> {
        overview.checks().into_iter().filter(|check| !check.ok).map(|check| check.text).collect()
    }

    #[test]
    fn each_obstacle_of_a_queue_fails_its_check() {
        let fine = QueueOverview { slots: 8, ..estimate(queue(0, -30.0), &[], &[]) };
        assert_eq!(failed(&fine), Vec::<String>::new());
        let texts: Vec<String> = fine.checks().into_iter().map(|check| check.text).collect();
        assert_eq!(texts[0], "no job is due; the next one is due in 30 s");
        assert_eq!(texts[4], "8 of 8 slots are free");

        let late = estimate(queue(9, 60.0), &[], &[]);
        let mut ill = QueueOverview { slots: 8, growing_by_per_second: Some(2.5), ..late };
        ill.status.running = 8;
        ill.status.failing_workers = ill.status.workers;
        ill.status.claim_error = Some("no space left on device".into());
        ill.status.paused_at = Some(datetime!(2026-11-28 12:00 UTC));
        ill.status.paused_by = Some("ada".into());
        ill.status.reason = Some("the processor is down".into());
        let expected = [
            "it is paused by ada: the processor is down",
            "all their claims fail in the database: no space left on device",
            "all 8 slots are in use",
            "due jobs do not get fewer: +2.50/s",
        ];
        assert_eq!(failed(&ill), expected);
        assert_eq!(ill.checks()[0].text, "jobs that are due: 9, the oldest for 60 s");

        ill.status.workers = 0;
        assert_eq!(failed(&ill)[1], "no live worker runs it");
    }
}
