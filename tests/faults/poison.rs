//! Jobs that panic, never end, cannot be read, or take their worker with them: everybody else's are done all the same.
//!
//! The worker is this test binary once more, asked to run the one test below with a variable set. Its jobs write down
//! each start and end in a file, so that what they did is known whatever becomes of their process.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use jobs::{
    boot::{
        db::Database,
        process,
        shutdown::{GRACE, Shutdown},
    },
    queue::{Failure, Job, NewJob, Outcome, Policy, Queue, Registry, Run, Worker, enqueue},
};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, PgPool};

use super::SOON;
use crate::harness::{
    database,
    process::Process,
    queue_harness::{FAST, quick_policy},
    scratch::Scratch,
};

/// Set for a worker: its database.
const DATABASE: &str = "MILLRACE_TEST_POISONED_WORKER";
/// Set for a worker: where its jobs write what they do.
const HISTORY: &str = "MILLRACE_TEST_HISTORY";
/// tokio's own: how many threads run jobs.
const THREADS: &str = "TOKIO_WORKER_THREADS";
/// Kibibytes of address space: room for threads and arenas, and for an allocation that must fail not to be too large.
const MEMORY: u64 = 4 << 20;
/// After killing so many workers a killer gives up: one more, and the queue may set it aside.
const KILLS: usize = 2;
const WORKERS: usize = 2;
/// Of each kind in one worker.
const SLOTS: usize = 2;
const DEADLINE: Duration = Duration::from_millis(400);

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Dose {
    Harmless,
    Panic,
    /// Blocks its thread for ever.
    Endless,
    Abort,
    OutOfMemory,
    /// Blocks its thread until the process dies.
    Blocking,
}

/// A job that may be poison.
#[derive(Debug, Serialize, Deserialize)]
struct Meal {
    name: String,
    dose: Dose,
}

impl Job for Meal {
    const NAME: &'static str = "meal";
    type Context = PathBuf;

    fn policy(_: &PathBuf) -> Policy {
        Policy { attempts: 2, deadline: DEADLINE, concurrency: SLOTS, ..quick_policy() }
    }

    async fn run(self, history: PathBuf, _: Run) -> Result<Outcome, Failure> {
        let kills = History::read(&history).starts(&self.name).len();
        note(&history, "start", &self.name);
        tokio::time::sleep(Duration::from_millis(10)).await;
        match self.dose {
            Dose::Harmless => {}
            Dose::Panic => panic!("poisoned"),
            Dose::Endless => block(),
            Dose::Blocking if kills < KILLS => block(),
            Dose::Abort if kills < KILLS => std::process::abort(),
            Dose::OutOfMemory if kills < KILLS => {
                let mut eaten = Vec::new();
                loop {
                    eaten.push(std::hint::black_box(vec![0_u8; 64 << 20]));
                }
            }
            Dose::Abort | Dose::OutOfMemory | Dose::Blocking => {}
        }
        note(&history, "end", &self.name);
        Ok(Outcome::Done)
    }
}

/// Never ends. Asleep, so that the other tests have a processor to run on: the thread is lost either way.
fn block() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Somebody else's job, in a queue of its own.
#[derive(Debug, Serialize, Deserialize)]
struct Bystander {
    name: String,
}

impl Job for Bystander {
    const NAME: &'static str = "bystander";
    type Context = PathBuf;

    fn policy(_: &PathBuf) -> Policy {
        Policy { deadline: DEADLINE, concurrency: SLOTS, ..quick_policy() }
    }

    async fn run(self, history: PathBuf, _: Run) -> Result<Outcome, Failure> {
        note(&history, "start", &self.name);
        tokio::time::sleep(Duration::from_millis(10)).await;
        note(&history, "end", &self.name);
        Ok(Outcome::Done)
    }
}

/// One write, so that no two processes' lines mix.
fn note(history: &Path, what: &str, name: &str) {
    let line = format!("{what} {} {name}\n", std::process::id());
    File::options().append(true).open(history).and_then(|mut file| file.write_all(line.as_bytes())).expect("a history");
}

/// What the jobs wrote: what happened, in which process, to which job.
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

/// In a test run: nothing. As a worker: works until it is killed, or left alone.
#[test]
fn works_for_the_tests_below() {
    let (Ok(database), Some(history)) = (std::env::var(DATABASE), std::env::var_os(HISTORY)) else { return };
    let parent = nix::unistd::getppid();
    std::thread::spawn(move || {
        while nix::unistd::getppid() == parent {
            std::thread::sleep(Duration::from_millis(100));
        }
        std::process::abort();
    });
    let history = PathBuf::from(history);
    let registry = Registry::default().job::<Meal>(history.clone()).job::<Bystander>(history);
    let database = Database::parse(&database).expect("a database");
    let ended = process::run("worker", async move {
        let shutdown = Shutdown::on_signals(GRACE).map_err(process::text)?;
        let worker = Worker::start(&database, FAST, registry, &shutdown).map_err(process::text)?;
        worker.stopped().await.map_err(process::text)
    });
    assert_eq!(ended, ExitCode::SUCCESS);
}

/// Workers that are started again when they die, and what they are given.
struct Kitchen {
    pool: PgPool,
    queue: Queue,
    history: PathBuf,
    workers: Vec<Process>,
    /// The last words of workers that died.
    deaths: Vec<String>,
    url: String,
    threads: String,
    _kept: (Scratch, database::TestDatabase),
}

impl Kitchen {
    /// Opens with workers of so many threads.
    async fn open(threads: usize) -> Self {
        let (scratch, kept) = (Scratch::new(), database::fresh().await);
        let (pool, url) = (kept.pool().await, kept.url.clone());
        let history = scratch.join("history");
        File::create(&history).expect("a history");
        let queue = Queue::start(pool.clone());
        let threads = threads.to_string();
        let mut new =
            Self { pool, queue, history, workers: vec![], deaths: vec![], url, threads, _kept: (scratch, kept) };
        for _ in 0..WORKERS {
            new.workers.push(new.worker());
        }
        new
    }

    /// A worker with little memory, whose death leaves no core file.
    fn worker(&self) -> Process {
        let mut command = Command::new("sh");
        let limited = format!("ulimit -c 0; ulimit -v {MEMORY}; exec \"$0\" \"$@\"");
        let test = concat!(module_path!(), "::works_for_the_tests_below");
        let test = test.split_once("::").map_or(test, |(_, within_crate)| within_crate);
        command.args(["-c", &limited]).arg(std::env::current_exe().expect("the path of this test binary"));
        command.args([test, "--exact", "--quiet", "--nocapture"]);
        let history = self.history.to_str().expect("UTF-8");
        let variables = [(DATABASE, &*self.url), (HISTORY, history), (THREADS, &self.threads), ("RUST_BACKTRACE", "0")];
        Process::run("poisoned worker", command, &variables)
    }

    /// Enqueues these in one transaction.
    async fn serve(&self, jobs: Vec<NewJob>) {
        let mut tx = self.queue.begin().await.expect("a transaction");
        enqueue(&mut tx, &jobs).await.expect("enqueued jobs");
        tx.commit().await.expect("a commit");
    }

    async fn holds(&self, condition: &str) -> bool {
        let query = AssertSqlSafe(format!("SELECT {condition}"));
        sqlx::query_scalar(query).fetch_one(&self.pool).await.expect("a condition")
    }

    /// Waits until a condition in SQL holds; workers that die meanwhile are started again.
    async fn until(&mut self, what: &str, condition: &str) {
        let begun = Instant::now();
        while !self.holds(condition).await {
            assert!(begun.elapsed() < SOON, "not within {SOON:?}: {what}");
            for at in 0..self.workers.len() {
                if !self.workers[at].is_running() {
                    self.workers[at].wait_for_exit(SOON).await;
                    self.deaths.push(self.workers[at].log());
                    self.workers[at] = self.worker();
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Nothing that is done was not run, and whatever is harmless is done.
    async fn all_harmless_are_done(&mut self, names: &[String]) {
        let unfinished = "NOT EXISTS (SELECT FROM apalis.jobs WHERE convert_from(job, 'UTF8') LIKE '%harmless%'
                          AND status <> 'Done')";
        self.wait_until("all harmless jobs are done", unfinished).await;
        let history = History::read(&self.history);
        let lost: Vec<_> = names.iter().filter(|name| !history.has_ended(name)).collect();
        assert!(lost.is_empty(), "done without having run to their ends: {lost:?}");
    }
}

impl Kitchen {
    /// Serves a killer among others: two workers die of it, everything is done, and the deaths are counted as such.
    async fn survives(&mut self, name: &str, dose: Dose, last_words: &str) {
        let (mut jobs, names) = harmless(40, &format!("beside {name}"));
        jobs.insert(10, meal(name, dose));
        self.serve(jobs).await;
        let begun = Instant::now();
        self.wait_until("all are done", "NOT EXISTS (SELECT FROM apalis.jobs WHERE status <> 'Done')").await;
        let took = begun.elapsed();
        self.all_harmless_are_done(&names).await;

        let history = History::read(&self.history);
        let processes = history.starts(name);
        let different: std::collections::HashSet<_> = processes.iter().collect();
        assert_eq!((processes.len(), different.len()), (KILLS + 1, KILLS + 1), "{name}: {processes:?}");
        assert!(history.has_ended(name));
        let deaths = std::mem::take(&mut self.deaths);
        assert_eq!(deaths.len(), KILLS, "{name}");
        assert!(deaths.iter().all(|log| log.contains(last_words)), "{name}: {deaths:?}");
        let counted = format!(
            "(SELECT crashes = {KILLS} AND failures = 0 AND attempts = {KILLS} + 1 FROM apalis.jobs
              WHERE convert_from(job, 'UTF8') LIKE '%\"{name}\"%')"
        );
        assert!(self.holds(&counted).await, "{name}: not counted as crashes");
        assert!(self.holds(&format!("NOT EXISTS (SELECT FROM apalis.jobs WHERE crashes > {KILLS})")).await, "{name}");
        println!("{name}: {KILLS} workers killed, everything done after {took:.2?}");
    }
}

fn meal(name: &str, dose: Dose) -> NewJob {
    NewJob::of(&Meal { name: name.into(), dose }).expect("a payload")
}

/// So many harmless jobs of either kind, and their names.
fn harmless(number: usize, when: &str) -> (Vec<NewJob>, Vec<String>) {
    let name = |n| format!("harmless {n} {when}");
    let job = |n| match n % 2 {
        0 => meal(&name(n), Dose::Harmless),
        _ => NewJob::of(&Bystander { name: name(n) }).expect("a payload"),
    };
    ((0..number).map(job).collect(), (0..number).map(name).collect())
}

#[tokio::test]
async fn jobs_that_go_wrong_in_their_worker_disturb_nobody() {
    let mut kitchen = Kitchen::open(12).await;
    // More runs that never end than slots: only slots that a deadline frees are enough for all.
    let endless: Vec<String> = (0..WORKERS * SLOTS + 1).map(|n| format!("endless {n}")).collect();
    let mut jobs = vec![meal("panics", Dose::Panic)];
    jobs.extend(endless.iter().map(|name| meal(name, Dose::Endless)));
    let (others, names) = harmless(40, "beside poison");
    jobs.extend(others);
    kitchen.serve(jobs).await;
    sqlx::query(
        "INSERT INTO apalis.jobs (id, job_type, job) VALUES ('01J00000000000000000000001', 'meal', 'no JSON'),
         ('01J00000000000000000000002', 'from_the_future', '{}')",
    )
    .execute(&kitchen.pool)
    .await
    .unwrap();
    let begun = Instant::now();
    kitchen.all_harmless_are_done(&names).await;
    let done = begun.elapsed();
    let dead = |error: &str, failures: i32, number: usize| {
        format!(
            "(SELECT count(*) FROM apalis.jobs WHERE status = 'Killed' AND failures = {failures} AND crashes = 0
              AND errors -> -1 ->> 'error' LIKE '{error}') = {number}"
        )
    };
    kitchen.until("the panicking one is dead", &dead("panicked: poisoned", 2, 1)).await;
    kitchen.until("the undecodable one is dead", &dead("undecodable payload%", 1, 1)).await;
    kitchen.until("the endless ones are dead", &dead("cancelled after its deadline%", 2, endless.len())).await;
    let given_up = begun.elapsed();
    assert!(kitchen.holds("(SELECT attempts = 0 FROM apalis.jobs WHERE job_type = 'from_the_future')").await);

    // Each of them still blocks a thread twice over; the workers live, beat and work.
    let (others, names) = harmless(40, "after poison");
    let begun = Instant::now();
    kitchen.serve(others).await;
    kitchen.all_harmless_are_done(&names).await;
    let after = begun.elapsed();
    assert!(kitchen.workers.iter_mut().all(Process::is_running));
    assert_eq!(kitchen.deaths, [""; 0]);
    let beat = format!("(SELECT count(*) FROM apalis.workers WHERE last_seen > now() - lease) = {WORKERS}");
    assert!(kitchen.holds(&beat).await, "heartbeats stopped");
    assert!(kitchen.holds("NOT EXISTS (SELECT FROM apalis.jobs WHERE crashes > 0)").await, "a lease was lost");

    let begun = Instant::now();
    for worker in &mut kitchen.workers {
        worker.signal(Signal::SIGTERM);
        let status = worker.wait_for_exit(SOON).await;
        assert_eq!(status.code(), Some(0), "{status}");
    }
    let stopped = begun.elapsed();
    println!(
        "poison that stays in its worker: others done after {done:.2?}, all {} endless ones given up after \
         {given_up:.2?} in {} slots; 40 more jobs then took {after:.2?}; \
         both workers stopped within {stopped:.2?}",
        endless.len(),
        WORKERS * SLOTS,
    );
}

#[tokio::test]
async fn jobs_that_kill_their_worker_run_elsewhere_and_are_counted_as_crashes() {
    let mut kitchen = Kitchen::open(2).await;
    // One after the other, so that no neighbour sees three workers die and is taken for a killer itself.
    kitchen.survives("abort", Dose::Abort, "").await;
    kitchen.survives("out of memory", Dose::OutOfMemory, "memory allocation of").await;
}

/// A worker that can enforce no deadline any more is of no use, and would keep what it holds for ever.
#[tokio::test]
async fn a_worker_whose_every_thread_is_blocked_makes_room_for_another() {
    Kitchen::open(1).await.survives("blocks", Dose::Blocking, "").await;
}
