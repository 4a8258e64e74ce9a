//! Tests of the queue's promises, numbered as in its design. Each test fails if its promise is broken.
//!
//! | promise | tested by |
//! |---|---|
//! | 1 enqueue is part of the caller's transaction | `enqueueing` |
//! | 2 claims: only as many as can run, in order, reading nothing else | `claims` |
//! | 2 claims under an old snapshot, fair shares, limits of keys | `old_snapshot`, `fairness` |
//! | 3 wake-up: notification, due time, poll | `waking` |
//! | 4 lease | `leases`, `clocks`, `faults::{frozen_worker, killed_worker, long_outage}` |
//! | 5 fencing | `leases`, `faults::frozen_worker` |
//! | 6 outcomes, 7 durable backoff | `outcomes` |
//! | 8 crashes counted separately, quarantine | `quarantine`, `faults::poison` |
//! | 9 dead letters, replay, unknown kinds | `claims`, `operating`, `operator` |
//! | 9 a malformed row affects only itself | `foreign_rows` |
//! | 10 results are kept until written, independently of each other | `stopping`, `results`, `faults::{restarted_database, lost_commit_response}` |
//! | 11 shutdown, 12 database errors | `stopping`, `faults::{stopped_worker, lost_sessions, exhausted_sessions}` |
//! | 13 unique, cancel, pause, priorities | `enqueueing`, `operating`, `selecting`, `claims` |
//! | 14 retention | `retention` |
//! | 15 PgBouncer | `pgbouncer` |
//! | 16 the `Job` trait | every scripted job of `harness::queue_harness` |

mod claims;
mod clocks;
mod depths;
mod enqueueing;
mod fairness;
mod foreign_rows;
mod history;
mod leases;
mod old_snapshot;
mod operating;
mod operators_view;
mod outcomes;
mod quarantine;
mod replays;
mod results;
mod retention;
mod selecting;
mod stopping;
mod waking;
