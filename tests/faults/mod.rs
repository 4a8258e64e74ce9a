//! Fault tests: real processes, real faults, and a history that is kept outside the database.
//!
//! The clients record which webhooks were acknowledged and which states they saw. The [`processor`] records every call.
//! A trigger of the test logs the [`settlements`] in the database. At the end all three are compared: no acknowledged
//! webhook is lost, no transaction settles twice, and states only move forward.
//!
//! | fault | file |
//! |---|---|
//! | repeated `kill -9` of workers | [`killed_worker`] |
//! | repeated `kill -9` of the API | [`killed_api`] |
//! | immediate restarts of PostgreSQL, without a shutdown | [`restarted_database`] |
//! | PostgreSQL is down for longer than the lease, or hangs | [`long_outage`] |
//! | every session is terminated twice a second | [`lost_sessions`] |
//! | other programs occupy every session of the server | [`exhausted_sessions`] |
//! | a standby is promoted while the old primary still runs | [`failover`] |
//! | connections die without a RST | [`silent_connections`] |
//! | the disk is full, or transaction ids have run out | [`refused_writes`] |
//! | a commit succeeds and its response is lost | [`lost_commit_response`] |
//! | a worker, or only its heartbeat, is frozen for longer than its lease, then continues | [`frozen_worker`] |
//! | SIGTERM of a worker | [`stopped_worker`] |
//! | SIGTERM of the API | [`stopped_api`] |
//! | jobs that panic, never end, cannot be decoded, or kill their worker | [`poison`] |
//! | hundreds of long-pollers on one API process | [`waiters`] |
//! | two hundred concurrent posts of one id | [`same_id`] |

mod clients;
mod exhausted_sessions;
mod failover;
mod frozen_worker;
mod killed_api;
mod killed_worker;
mod long_outage;
mod lost_commit_response;
mod lost_sessions;
mod poison;
pub(crate) mod processor;
mod refused_writes;
mod restarted_database;
mod same_id;
mod server;
mod settlements;
mod silent_connections;
mod stopped_api;
mod stopped_worker;
mod waiters;

use std::{ops::Range, time::Duration};

pub(crate) use self::clients::{post_same_id, webhook};

/// Variables of the processes under test: a lease of 1 s instead of 15 s, and all other times in proportion.
const QUICK: [(&str, &str); 5] = [
    ("QUEUE_LEASE_SECONDS", "1"),
    ("QUEUE_HEARTBEAT_SECONDS", "0.2"),
    ("QUEUE_RESCUE_SECONDS", "0.2"),
    ("QUEUE_POLL_SECONDS", "0.05"),
    ("PROCESSING_DELAY_SECONDS", "0.3"),
];

/// A deadline for events that take a second on an idle machine, here on one that runs three other builds.
const SOON: Duration = Duration::from_secs(30);

/// A random number in this range. It differs between runs, because the promises must hold at any moment of a fault.
fn random(range: Range<u64>) -> u64 {
    range.start + uuid::Uuid::new_v4().as_u64_pair().1 % (range.end - range.start)
}

/// Waits for a random time, so that the next fault occurs at a random moment.
async fn random_delay(milliseconds: Range<u64>) {
    tokio::time::sleep(Duration::from_millis(random(milliseconds))).await;
}

/// Variables for the processes of a test that processes transactions over HTTP.
fn with_processor(url: &str) -> Vec<(&str, &str)> {
    [&QUICK[..], &[("PROCESSOR_URL", url)]].concat()
}
