//! Jobs that panic, never end, cannot be decoded, or kill their worker: all other jobs are done nevertheless.
//!
//! The worker is this test binary, started with a variable set and only the test below selected. Its jobs record each
//! start and end in a file, which outlives their process.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use queue::{Failure, Job, NewJob, Outcome, Policy, Queue, Registry, Run, Timing, Worker, enqueue};
use runtime::{
    db::Database,
    process,
    shutdown::{GRACE, Shutdown},
};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, PgPool};

use super::SOON;
use crate::harness::{
    database,
    process::Process,
    queue_harness::{FAST, ScriptedJob, ScriptedJobs, quick_policy},
    scratch::Scratch,
};

/// The variable with a worker's database.
const DATABASE: &str = "MILLRACE_TEST_POISONED_WORKER";
/// The variable with the file in which a worker's jobs record their starts and ends.
const HISTORY: &str = "MILLRACE_TEST_HISTORY";
/// Tokio's variable for the number of threads.
const THREADS: &str = "TOKIO_WORKER_THREADS";
/// The limit of address space in KiB: enough for threads and arenas, small enough for an allocation to fail soon.
const MEMORY: u64 = 4 << 20;
/// How many workers a poison job kills. After one more the queue may quarantine it.
const KILLS: usize = 2;
const WORKERS: usize = 2;
/// The concurrency of each job type in one worker.
const SLOTS: usize = 2;
/// A harmless run does not miss it, although it takes a moment longer on a busy machine.
const DEADLINE: Duration = Duration::from_secs(2);
/// A short lease, that no living worker loses on a busy machine.
const TIMING: Timing = Timing { lease: Duration::from_secs(5), ..FAST };
/// Two deaths take two leases, and those of blocked workers two deadlines and two leases more.
const LIMIT: Duration = Duration::from_secs(90);

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Poison {
    Harmless,
    Panic,
    /// Blocks its thread and never ends.
    Endless,
    Abort,
    OutOfMemory,
    /// Blocks its thread until the process dies.
    Blocking,
}

/// A job that may damage its worker.
#[derive(Debug, Serialize, Deserialize)]
struct PoisonJob {
    name: String,
    poison: Poison,
}

impl Job for PoisonJob {
    const NAME: &'static str = "poison";
    type Context = PathBuf;

    fn policy(_: &PathBuf) -> Policy {
        Policy { attempts: 2, deadline: DEADLINE, concurrency: SLOTS, ..quick_policy() }
    }

    async fn run(self, history: PathBuf, _: Run) -> Result<Outcome, Failure> {
        let kills = History::read(&history).starts(&self.name).len();
        record(&history, "start", &self.name);
        tokio::time::sleep(Duration::from_millis(10)).await;
        match self.poison {
            Poison::Harmless => {}
            Poison::Panic => panic!("poisoned"),
            Poison::Endless => block(),
            Poison::Blocking if kills < KILLS => block(),
            Poison::Abort if kills < KILLS => std::process::abort(),
            Poison::OutOfMemory if kills < KILLS => {
                let mut allocated = Vec::new();
                loop {
                    allocated.push(std::hint::black_box(vec![0_u8; 64 << 20]));
                }
            }
            Poison::Abort | Poison::OutOfMemory | Poison::Blocking => {}
        }
        record(&history, "end", &self.name);
        Ok(Outcome::Done)
    }
}

/// Blocks the thread. It sleeps, so that other tests can use the processor.
fn block() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// A harmless job in another queue.
#[derive(Debug, Serialize, Deserialize)]
struct HealthyJob {
    name: String,
}

impl Job for HealthyJob {
    const NAME: &'static str = "healthy";
    type Context = PathBuf;

    fn policy(_: &PathBuf) -> Policy {
        Policy { deadline: DEADLINE, concurrency: SLOTS, ..quick_policy() }
    }

    async fn run(self, history: PathBuf, _: Run) -> Result<Outcome, Failure> {
        record(&history, "start", &self.name);
        tokio::time::sleep(Duration::from_millis(10)).await;
        record(&history, "end", &self.name);
        Ok(Outcome::Done)
    }
}

/// Appends a line to the history. A single write, so that the lines of two processes do not mix.
fn record(history: &Path, what: &str, name: &str) {
    let line = format!("{what} {} {name}\n", std::process::id());
    File::options().append(true).open(history).and_then(|mut file| file.write_all(line.as_bytes())).expect("a history");
}

/// The recorded events: kind, process and job.
struct History(Vec<(String, u32, String)>);

impl History {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("a history");
        let words = |line: &str| {
            let mut words = line.splitn(3, ' ').map(str::to_owned);
            Some((words.next()?, words.next()?.parse().ok()?, words.next()?))
        };
        Self(text.lines().map(|line| words(line).expect("three words")).collect())
    }

    /// The processes that started this job, one for each start.
    fn starts(&self, name: &str) -> Vec<u32> {
        self.0.iter().filter(|(what, _, of)| what == "start" && of == name).map(|(_, process, _)| *process).collect()
    }

    fn has_ended(&self, name: &str) -> bool {
        self.0.iter().any(|(what, _, of)| what == "end" && of == name)
    }
}

/// In a test run, does nothing. In a worker process, works until it is killed or its parent has ended.
#[test]
fn runs_a_worker_for_the_tests_below() {
    let (Ok(database), Some(history)) = (std::env::var(DATABASE), std::env::var_os(HISTORY)) else { return };
    let parent = nix::unistd::getppid();
    std::thread::spawn(move || {
        while nix::unistd::getppid() == parent {
            std::thread::sleep(Duration::from_millis(100));
        }
        std::process::abort();
    });
    let history = PathBuf::from(history);
    // A kind of which no job runs. Its deadline must not keep the watchdog from ending a blocked worker.
    let idle = ScriptedJobs::new(Policy { deadline: Duration::from_secs(3600), ..quick_policy() });
    let registry =
        Registry::default().job::<PoisonJob>(history.clone()).job::<HealthyJob>(history).job::<ScriptedJob>(idle);
    let database = Database::parse(&database).expect("a database");
    let ended = process::run("worker", async move {
        let shutdown = Shutdown::on_signals(GRACE).map_err(process::error_text)?;
        let worker = Worker::start(&database, TIMING, registry, &shutdown).map_err(process::error_text)?;
        worker.stopped().await.map_err(process::error_text)
    });
    assert_eq!(ended, ExitCode::SUCCESS);
}

/// Workers that are restarted when they die, with their queue.
struct CrashingWorkers {
    pool: PgPool,
    queue: Queue,
    history: PathBuf,
    workers: Vec<Process>,
    /// The logs of workers that died.
    deaths: Vec<String>,
    url: String,
    threads: String,
    /// Removed with this value.
    _resources: (Scratch, database::TestDatabase),
}

impl CrashingWorkers {
    /// Starts workers with this number of threads.
    async fn start(threads: usize) -> Self {
        let (scratch, database) = (Scratch::new(), database::fresh().await);
        let (pool, url) = (database.pool().await, database.url.clone());
        let history = scratch.join("history");
        File::create(&history).expect("a history");
        let queue = Queue::start(pool.clone().into());
        let (threads, workers, deaths, resources) = (threads.to_string(), vec![], vec![], (scratch, database));
        let mut new = Self { pool, queue, history, workers, deaths, url, threads, _resources: resources };
        for _ in 0..WORKERS {
            new.workers.push(new.start_worker());
        }
        new
    }

    /// Starts a worker with little memory and without core files.
    fn start_worker(&self) -> Process {
        let mut command = Command::new("sh");
        let limited = format!("ulimit -c 0; ulimit -v {MEMORY}; exec \"$0\" \"$@\"");
        let test = concat!(module_path!(), "::runs_a_worker_for_the_tests_below");
        let test = test.split_once("::").map_or(test, |(_, within_crate)| within_crate);
        command.args(["-c", &limited]).arg(std::env::current_exe().expect("the path of this test binary"));
        command.args([test, "--exact", "--quiet", "--nocapture"]);
        let history = self.history.to_str().expect("UTF-8");
        let variables = [(DATABASE, &*self.url), (HISTORY, history), (THREADS, &self.threads), ("RUST_BACKTRACE", "0")];
        Process::run("crashing worker", command, &variables)
    }

    /// Enqueues these jobs in one transaction.
    async fn enqueue(&self, jobs: Vec<NewJob>) {
        let mut tx = self.queue.begin().await.expect("a transaction");
        enqueue(&mut tx, &jobs).await.expect("enqueued jobs");
        tx.commit().await.expect("a commit");
    }

    async fn condition_holds(&self, condition: &str) -> bool {
        let query = AssertSqlSafe(format!("SELECT {condition}"));
        sqlx::query_scalar(query).fetch_one(&self.pool).await.expect("a condition")
    }

    /// Waits until a condition in SQL holds. Restarts workers that die meanwhile.
    async fn wait_until(&mut self, what: &str, condition: &str) {
        let begun = Instant::now();
        loop {
            let holds = self.condition_holds(condition).await;
            // Also when it holds: what led to it may be a death that was not seen yet.
            for at in 0..self.workers.len() {
                if !self.workers[at].is_running() {
                    self.workers[at].wait_for_exit(SOON).await;
                    self.deaths.push(self.workers[at].log());
                    self.workers[at] = self.start_worker();
                }
            }
            if holds {
                return;
            }
            assert!(begun.elapsed() < LIMIT, "condition not met within {LIMIT:?}: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until all harmless jobs are done, and asserts that each of these has run to its end.
    async fn assert_harmless_jobs_done(&mut self, names: &[String]) {
        let unfinished = "NOT EXISTS (SELECT FROM apalis.jobs WHERE convert_from(job, 'UTF8') LIKE '%harmless%'
                          AND status <> 'Done')";
        self.wait_until("all harmless jobs are done", unfinished).await;
        let history = History::read(&self.history);
        let lost: Vec<_> = names.iter().filter(|name| !history.has_ended(name)).collect();
        assert!(lost.is_empty(), "done, but not run to the end: {lost:?}");
    }
}

impl CrashingWorkers {
    /// Enqueues a poison job among harmless ones. Asserts that it kills two workers, that the kills count as crashes, and
    /// that every job is done.
    async fn assert_survives(&mut self, name: &str, poison: Poison, expected_log: &str) {
        let (mut jobs, names) = harmless_jobs(40, &format!("next to {name}"));
        jobs.insert(10, poison_job(name, poison));
        self.enqueue(jobs).await;
        let begun = Instant::now();
        self.wait_until("all are done", "NOT EXISTS (SELECT FROM apalis.jobs WHERE status <> 'Done')").await;
        let took = begun.elapsed();
        self.assert_harmless_jobs_done(&names).await;

        let history = History::read(&self.history);
        let processes = history.starts(name);
        let different: std::collections::HashSet<_> = processes.iter().collect();
        assert_eq!((processes.len(), different.len()), (KILLS + 1, KILLS + 1), "{name}: {processes:?}");
        assert!(history.has_ended(name));
        let deaths = std::mem::take(&mut self.deaths);
        assert_eq!(deaths.len(), KILLS, "{name}");
        assert!(deaths.iter().all(|log| log.contains(expected_log)), "{name}: {deaths:?}");
        let counted = format!(
            "(SELECT crashes = {KILLS} AND failures = 0 AND attempts = {KILLS} + 1 FROM apalis.jobs
              WHERE convert_from(job, 'UTF8') LIKE '%\"{name}\"%')"
        );
        assert!(self.condition_holds(&counted).await, "{name}: not counted as crashes");
        assert!(
            self.condition_holds(&format!("NOT EXISTS (SELECT FROM apalis.jobs WHERE crashes > {KILLS})")).await,
            "{name}"
        );
        println!("{name}: {KILLS} workers killed, everything done after {took:.2?}");
    }
}

fn poison_job(name: &str, poison: Poison) -> NewJob {
    NewJob::of(&PoisonJob { name: name.into(), poison }).expect("a payload")
}

/// Harmless jobs of both types, and their names.
fn harmless_jobs(number: usize, when: &str) -> (Vec<NewJob>, Vec<String>) {
    let name = |n| format!("harmless {n} {when}");
    let job = |n| match n % 2 {
        0 => poison_job(&name(n), Poison::Harmless),
        _ => NewJob::of(&HealthyJob { name: name(n) }).expect("a payload"),
    };
    ((0..number).map(job).collect(), (0..number).map(name).collect())
}

#[tokio::test]
async fn jobs_that_panic_or_hang_do_not_affect_other_jobs() {
    let mut crashing = CrashingWorkers::start(12).await;
    // More endless runs than slots: deadlines must free slots for all jobs to run.
    let endless: Vec<String> = (0..WORKERS * SLOTS + 1).map(|n| format!("endless {n}")).collect();
    let mut jobs = vec![poison_job("panics", Poison::Panic)];
    jobs.extend(endless.iter().map(|name| poison_job(name, Poison::Endless)));
    let (others, names) = harmless_jobs(40, "next to poison");
    jobs.extend(others);
    crashing.enqueue(jobs).await;
    sqlx::query(
        "INSERT INTO apalis.jobs (id, job_type, job) VALUES ('01J00000000000000000000001', 'poison', 'no JSON'),
         ('01J00000000000000000000002', 'from_the_future', '{}')",
    )
    .execute(&crashing.pool)
    .await
    .unwrap();
    let begun = Instant::now();
    crashing.assert_harmless_jobs_done(&names).await;
    let done = begun.elapsed();
    let dead = |error: &str, failures: i32, number: usize| {
        format!(
            "(SELECT count(*) FROM apalis.jobs WHERE status = 'Killed' AND failures = {failures} AND crashes = 0
              AND errors -> -1 ->> 'error' LIKE '{error}') = {number}"
        )
    };
    crashing.wait_until("the panicking job is dead", &dead("panicked: poisoned", 2, 1)).await;
    crashing.wait_until("the undecodable job is dead", &dead("undecodable payload%", 1, 1)).await;
    crashing.wait_until("the endless jobs are dead", &dead("cancelled after its deadline%", 2, endless.len())).await;
    let all_dead = begun.elapsed();
    assert!(
        crashing.condition_holds("(SELECT attempts = 0 FROM apalis.jobs WHERE job_type = 'from_the_future')").await
    );

    // Each endless job still blocks two threads. The workers are alive, renew their leases and run jobs.
    let (others, names) = harmless_jobs(40, "after poison");
    let begun = Instant::now();
    crashing.enqueue(others).await;
    crashing.assert_harmless_jobs_done(&names).await;
    let after = begun.elapsed();
    assert!(crashing.workers.iter_mut().all(Process::is_running));
    let now: String = sqlx::query_scalar("SELECT now()::text").fetch_one(&crashing.pool).await.unwrap();
    let alive = format!("(SELECT count(*) FROM apalis.workers WHERE last_seen > '{now}') = {WORKERS}");
    crashing.wait_until("both workers renew their leases", &alive).await;
    assert_eq!(crashing.deaths, [""; 0]);
    assert!(
        crashing.condition_holds("NOT EXISTS (SELECT FROM apalis.jobs WHERE crashes > 0)").await,
        "a lease was lost"
    );

    let begun = Instant::now();
    for worker in &mut crashing.workers {
        worker.signal(Signal::SIGTERM);
        let status = worker.wait_for_exit(SOON).await;
        assert_eq!(status.code(), Some(0), "{status}");
    }
    let stopped = begun.elapsed();
    println!(
        "jobs that panic or hang: others done after {done:.2?}, all {} endless jobs dead after \
         {all_dead:.2?} in {} slots; 40 more jobs then took {after:.2?}; \
         both workers stopped within {stopped:.2?}",
        endless.len(),
        WORKERS * SLOTS,
    );
}

#[tokio::test]
async fn jobs_that_kill_their_worker_run_elsewhere_and_are_counted_as_crashes() {
    let mut crashing = CrashingWorkers::start(2).await;
    // One after the other: a harmless job that sees three workers die would be quarantined, too.
    crashing.assert_survives("abort", Poison::Abort, "").await;
    crashing.assert_survives("out of memory", Poison::OutOfMemory, "memory allocation of").await;
}

/// A worker without a free thread cannot enforce deadlines, and would hold its jobs indefinitely.
#[tokio::test]
async fn a_worker_with_all_threads_blocked_ends() {
    CrashingWorkers::start(1).await.assert_survives("blocks", Poison::Blocking, "").await;
}
