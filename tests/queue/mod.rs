//! The queue's promises, by the numbers of its design: each test fails without what it is about.
//!
//! | promise | held by |
//! |---|---|
//! | 1 enqueue is part of the caller's transaction | `enqueueing` |
//! | 2 claims: no more than can run, in order, read nothing else | `claims` |
//! | 3 wake-up: notification, due time, look | `waking` |
//! | 4 lease | `leases`, `clocks`, `faults::{frozen_worker, killed_worker, long_outage}` |
//! | 5 fencing | `leases`, `faults::frozen_worker` |
//! | 6 outcomes, 7 durable backoff | `outcomes` |
//! | 8 crashes counted apart, quarantine | `quarantine`, `faults::poison` |
//! | 9 dead letters, replay, unknown kinds | `claims`, `operating`, `operator` |
//! | 9 one bad row harms itself only | `foreign_rows` |
//! | 10 results are kept until written, each by itself | `stopping`, `results`, `faults::{restarted_database, unanswered_commit}` |
//! | 11 shutdown, 12 errors of the database | `stopping`, `faults::{stopped_worker, lost_sessions, exhausted_sessions}` |
//! | 13 unique, cancel, pause, priorities | `enqueueing`, `operating`, `claims` |
//! | 14 retention | `retention` |
//! | 15 PgBouncer | `pgbouncer` |
//! | 16 the face | every scripted job of `harness::queue_harness` |

mod claims;
mod clocks;
mod enqueueing;
mod foreign_rows;
mod leases;
mod operating;
mod outcomes;
mod quarantine;
mod results;
mod retention;
mod stopping;
mod waking;
