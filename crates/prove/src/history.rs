//! The history of a fault: every action of a client and every effect, in a file outside the database.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use runtime::mutex::lock;
use serde::{Deserialize, Serialize};

/// What happened. `id` is the sender's id of a transaction; `payload` is 0 for its first payload, and higher for payloads
/// that contradict it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// A worker process was started with this database role. Its claims carry its process id.
    Worker { role: String, pid: u32 },
    /// A client posts a webhook.
    Sent { id: String, payload: u32 },
    /// A client got a 202 for it.
    Acknowledged { id: String, payload: u32, outcome: Outcome },
    /// A client got a 503 with a `Retry-After`.
    Unavailable { id: String },
    /// A client got no response.
    Unanswered { id: String },
    /// A client got a response that the contract does not allow here.
    Refused { id: String, reason: String },
    /// A client saw this state of a transaction. `client` sends one request at a time.
    Seen { client: usize, id: String, state: State },
    /// The processor was called for a transaction, with this idempotency key.
    Called { id: String, key: String },
    /// A job of the schedule ran.
    Fired { fire_time: i64, job: String },
    /// A run of a task began. Tasks are jobs that report their runs; `run` is the number of the claim.
    Started { job: String, run: i32 },
    /// A run of a task failed, and asked for a pause before the next one.
    Failed { job: String, run: i32, pause_ms: u64 },
    /// A run of a task did its work. `at_us` is this machine's clock, in microseconds of Unix time.
    Ended { job: String, run: i32, at_us: i64 },
    /// The work of a run began. At most one run of its key may be at work; `pid` is the process that runs it.
    Entered { key: String, job: String, run: i32, pid: u32 },
    /// That work has ended.
    Left { key: String, job: String, run: i32 },
    /// A process was killed, and has ended: so has the work of its runs.
    Killed { pid: u32 },
    /// This task was committed while no worker received notifications. It must start within this time.
    Expected { job: String, within_ms: u64 },
    /// A user created an item, with a 201.
    Created { item: i64 },
    /// The search engine was given an item.
    Indexed { item: i64 },
    /// The fault begins, or ends.
    Fault { what: String },
    /// At the end: a row of the database.
    Recorded { id: String, state: State, settlements: u32, jobs: u32, conflicts: u32 },
    /// At the end, in the order of their times: a worker renewed its lease. From here on, `at_us` is the database's clock,
    /// in microseconds of Unix time.
    Renewed { worker: String, at_us: i64, lease_us: i64 },
    /// A worker claimed a job of this kind.
    Claimed { job: String, kind: String, run: i32, worker: String, at_us: i64 },
    /// A job was taken from a worker that counted as dead.
    Rescued { job: String, worker: String, at_us: i64 },
    /// A failed run was recorded, and its job waits again.
    Retried { job: String, run: i32, at_us: i64 },
    /// A job was completed by the session of `role`, while the worker `claimed_by` held it for this run.
    Completed { job: String, run: i32, role: String, claimed_by: String, at_us: i64 },
    /// At the end: another broken promise, such as a secret in a log.
    Broken { what: String },
}

/// How a webhook was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    New,
    Replayed,
    Conflict,
}

/// The state of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub status: String,
    /// The time of the settlement, as the API writes it.
    pub processed_at: Option<String>,
}

impl State {
    /// Whether it is final.
    pub(crate) fn is_settled(&self) -> bool {
        self.status != "PROCESSING"
    }
}

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Milliseconds since the history began.
    pub at_ms: u64,
    #[serde(flatten)]
    pub event: Event,
}

/// An open history. Each event is one write to an append-only file, so that nothing is lost if this process dies.
pub(crate) struct History {
    path: PathBuf,
    begun: Instant,
    file: Mutex<File>,
    /// The number of lines.
    lines: AtomicUsize,
    /// The first error of a write. It fails the fault at its end.
    failed: Mutex<Option<io::Error>>,
}

impl History {
    /// Creates the file.
    ///
    /// # Errors
    /// When it cannot be created.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = File::options().create_new(true).append(true).open(path)?;
        let (path, begun) = (path.to_owned(), Instant::now());
        Ok(Self { path, begun, file: Mutex::new(file), lines: AtomicUsize::new(0), failed: Mutex::default() })
    }

    /// Milliseconds since the history began.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The number of events so far.
    pub(crate) fn count(&self) -> usize {
        self.lines.load(Ordering::SeqCst)
    }

    /// Appends an event.
    pub(crate) fn record(&self, event: Event) {
        let at_ms = self.now_ms();
        let written = serde_json::to_vec(&Line { at_ms, event }).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            let mut file = lock(&self.file);
            file.write_all(&line)?;
            self.lines.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        if let Err(error) = written {
            lock(&self.failed).get_or_insert(error);
        }
    }

    /// Reads all events from the file, in the order in which they were recorded.
    ///
    /// # Errors
    /// When the file cannot be read, or an event could not be written.
    pub(crate) fn read(&self) -> io::Result<impl Iterator<Item = io::Result<Line>> + use<>> {
        if let Some(error) = lock(&self.failed).take() {
            return Err(error);
        }
        let lines = BufReader::new(File::open(&self.path)?).lines();
        Ok(lines.map(|line| Ok(serde_json::from_str(&line?)?)))
    }
}
