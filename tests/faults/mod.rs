//! What happens when something breaks: real processes, real faults, and a history that is kept outside the database.
//!
//! Clients write down what was acknowledged and what they saw; the [`processor`] writes down every call it gets; the
//! [`settlements`] of the database are logged by a trigger of the test. At the end they are compared: nothing
//! acknowledged is lost, nothing settles twice, states only move forward.
//!
//! | fault | file |
//! |---|---|
//! | `kill -9` of workers, again and again | [`killed_worker`] |
//! | `kill -9` of the API, again and again | [`killed_api`] |
//! | PostgreSQL restarts at once, without goodbyes | [`restarted_database`] |
//! | PostgreSQL is away for longer than the lease, or hangs | [`long_outage`] |
//! | every session is terminated, several times a second | [`lost_sessions`] |
//! | others take every session of the server | [`exhausted_sessions`] |
//! | a standby is promoted, and the old primary lives on | [`failover`] |
//! | connections die without a RST | [`silent_connections`] |
//! | the disk is full, or transaction ids have run out | [`refused_writes`] |
//! | a commit happens and its answer gets lost | [`unanswered_commit`] |
//! | a worker, or its heartbeats alone, stand still beyond its lease and go on | [`frozen_worker`] |
//! | SIGTERM of a worker | [`stopped_worker`] |
//! | SIGTERM of the API | [`stopped_api`] |
//! | jobs that panic, never end, cannot be read, or take their worker with them | [`poison`] |
//! | hundreds of long-pollers on one API process | [`waiters`] |
//! | one id, two hundred times at once | [`same_id`] |

mod clients;
mod exhausted_sessions;
mod failover;
mod frozen_worker;
mod killed_api;
mod killed_worker;
mod long_outage;
mod lost_sessions;
mod poison;
pub mod processor;
mod refused_writes;
mod restarted_database;
mod same_id;
mod server;
mod settlements;
mod silent_connections;
mod stopped_api;
mod stopped_worker;
mod unanswered_commit;
mod waiters;

use std::{ops::Range, time::Duration};

pub use self::clients::{answers_to_one_id, webhook};

/// Variables of the processes under test: a lease of a second instead of fifteen, and everything else in proportion.
const QUICK: [(&str, &str); 5] = [
    ("QUEUE_LEASE_SECONDS", "1"),
    ("QUEUE_HEARTBEAT_SECONDS", "0.2"),
    ("QUEUE_RESCUE_SECONDS", "0.2"),
    ("QUEUE_POLL_SECONDS", "0.05"),
    ("PROCESSING_DELAY_SECONDS", "0.3"),
];

/// For what takes a second on an idle machine, on one that builds three other things.
const SOON: Duration = Duration::from_secs(30);

/// A number in this range, another one in every run: what holds must hold whenever a fault comes.
fn random(range: Range<u64>) -> u64 {
    range.start + uuid::Uuid::new_v4().as_u64_pair().1 % (range.end - range.start)
}

/// Waits so long that a fault comes at no moment in particular.
async fn moment(milliseconds: Range<u64>) {
    tokio::time::sleep(Duration::from_millis(random(milliseconds))).await;
}

/// Variables for all processes of a test whose transactions are processed over HTTP.
fn with_processor(url: &str) -> Vec<(&str, &str)> {
    [&QUICK[..], &[("PROCESSOR_URL", url)]].concat()
}
