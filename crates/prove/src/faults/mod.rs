//! The faults, in the order in which they run.

mod database;
mod external;
mod limits;
mod load;
mod network;
mod processes;
mod search;
mod surroundings;
mod tasks;
mod upgrade;

use std::path::Path;

use anyhow::Result;
use futures_util::future::BoxFuture;

use crate::{Options, file_limit, helpers, scene::Scene, server::Server, small_disk};

/// A fault.
#[derive(Debug)]
pub struct Fault {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is done, in one line.
    pub about: &'static str,
    needs: &'static [Need],
    run: Run,
}

type Run = for<'f> fn(&'f mut Scene<'_>) -> BoxFuture<'f, Result<()>>;

/// What a fault needs in addition to a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// A server that this process may kill and configure.
    OurServer,
    /// `/proc` and Linux' signals of a stopped process.
    Linux,
    /// A library that changes the time of a process.
    Faketime,
    /// To mount a small disk.
    Mount,
    /// A program that limits the files of another process.
    FileLimit,
    PgBouncer,
    Redis,
    /// The program of the release before.
    Previous,
}

/// The places of faketime's library on Debian and its relatives.
const FAKETIME: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"];

/// The library that changes the time of a process, if it is installed.
fn faketime() -> Option<&'static str> {
    FAKETIME.into_iter().find(|path| Path::new(path).exists())
}

impl Fault {
    /// What the fault needs and does not have here.
    pub(crate) fn missing(&self, server: &Server, options: &Options) -> Option<&'static str> {
        self.needs.iter().find_map(|need| match need {
            Need::OurServer if !server.is_ours() => Some("a server of its own: leave out --database-url"),
            Need::Linux if !cfg!(target_os = "linux") => Some("Linux"),
            Need::Faketime if faketime().is_none() => Some("the package faketime"),
            Need::Mount if !small_disk::is_possible() => Some("root that may mount a tmpfs"),
            Need::FileLimit if helpers::program(file_limit::PROGRAM).is_none() => Some("prlimit of util-linux"),
            Need::PgBouncer if helpers::program("pgbouncer").is_none() => Some("pgbouncer"),
            Need::Redis if helpers::program("redis-server").is_none() => Some("redis-server"),
            Need::Previous if options.previous.is_none() => Some("the release before: --previous PATH"),
            _ => None,
        })
    }

    /// Whether it changes the server itself, so that it must come to its end.
    pub(crate) fn changes_server(&self) -> bool {
        self.needs.contains(&Need::OurServer)
    }

    /// Carries out the fault, and takes it back.
    ///
    /// # Errors
    /// When it cannot be carried out.
    pub(crate) async fn run(&self, scene: &mut Scene<'_>) -> Result<()> {
        (self.run)(scene).await
    }
}

/// The fault that [`Options::during`](crate::Options::during) describes. It runs instead of all others.
pub static EXTERNAL: Fault = Fault {
    name: "external",
    about: "a command of the user, under load",
    needs: &[],
    run: |scene| Box::pin(external::run_command(scene)),
};

/// Declares the faults: name, description, needs and function.
macro_rules! faults {
    ($($name:literal, $about:literal, [$($need:ident),*], $run:path;)+) => {
        /// All faults.
        pub static FAULTS: &[Fault] = &[
            $(Fault {
                name: $name,
                about: $about,
                needs: &[$(Need::$need),*],
                run: |scene| Box::pin($run(scene)),
            },)+
        ];
    };
}

faults! {
    "worker-killed", "kill -9 of a worker, three times", [], processes::kill_workers;
    "api-killed", "kill -9 of the API, three times", [], processes::kill_api;
    "worker-frozen", "SIGSTOP of a worker for three leases, then SIGCONT", [Linux], processes::freeze_worker;
    "lease-expired", "a worker thaws after its lease and cannot renew it, while another one goes on", [Linux], processes::expire_lease;
    "late-results", "the results of a frozen worker arrive while later runs of its jobs go on", [Linux], tasks::deliver_late_results;
    "worker-stopped", "SIGTERM of a worker under load, twice", [], processes::stop_worker;
    "api-stopped", "SIGTERM of the API under load, twice", [], processes::stop_api;
    "clock-wrong", "a worker's clock is an hour ahead, then an hour behind", [Faketime], processes::change_clock;
    "backend-killed", "kill -9 of a PostgreSQL backend, so that the server restarts all", [OurServer], database::kill_backend;
    "postgres-killed", "kill -9 of PostgreSQL", [OurServer], database::kill_server;
    "postgres-restarted", "ten immediate restarts of PostgreSQL", [OurServer], database::restart_server;
    "sessions-ended", "every session is terminated, twice a second", [], database::terminate_sessions;
    "listener-ended", "the listening sessions are terminated, ten times a second", [], database::terminate_listeners;
    "listener-missed", "jobs are committed while no worker listens, and polls are a minute apart", [], tasks::miss_notifications;
    "connections-taken", "others take every connection of the server", [OurServer], database::take_connections;
    "read-only", "the server becomes read-only, as after a failover", [OurServer], database::make_read_only;
    "disk-full", "the disk of the tables is full, for three leases", [OurServer, Mount], surroundings::fill_disk;
    "wal-full", "the write-ahead log cannot grow, as on a full disk, for three leases", [OurServer, Linux, FileLimit], database::fill_wal;
    "logs-full", "the disk of the logs is full, for three leases", [Mount], surroundings::fill_logs;
    "pgbouncer", "all connections share a few through PgBouncer in transaction mode, which is killed", [OurServer, PgBouncer], surroundings::use_pooler;
    "redis-gone", "Redis hangs, is killed, and comes back empty", [Redis], surroundings::lose_redis;
    "search-gone", "the search engine is gone while items are created", [], search::lose_engine;
    "snapshot-pinned", "a forgotten transaction keeps its snapshot", [], database::pin_snapshot;
    "connection-cut", "every connection to the database is cut, five times", [], network::cut;
    "connection-slow", "each packet of the database takes 100 ms", [], network::delay;
    "connection-dead", "connections die without a word, for three leases", [], network::silence;
    "commit-reply-lost", "replies to commits are lost, in each process", [], network::lose_commits;
    "duplicates", "one id is posted a hundred times at once, and contradicted", [], load::storm;
    "poison", "jobs panic, abort, never end, allocate, or have a result that PostgreSQL refuses", [Linux], load::poison;
    "retries", "jobs fail on purpose, and ask for a pause", [], tasks::retry;
    "limit-kills", "kill -9 of workers that run jobs of limited keys", [], limits::kill_workers;
    "unknown-kinds", "jobs of a kind that no worker knows", [], load::unknown_kinds;
    "backlog", "a backlog of jobs that wait in a paused queue", [], load::backlog;
    "upgrade", "the release before and this one share a database: forward, back and forward", [Previous], upgrade::roll;
}
