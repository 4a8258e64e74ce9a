//! The examination of the database: is it in trouble, or will it be soon?
//!
//! Each check is one function of a file of this folder, and reads catalogues and statistics only: its cost does not depend
//! on the number of jobs. A check that takes over a second is not known now; the others go on. Nothing is changed.

mod access;
mod context;
mod finding;
mod schema;
mod schema_list;
mod server;
mod sessions;
mod storage;
mod store;
mod words;

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use futures_util::future::{BoxFuture, join_all};
use serde::Serialize;
use time::OffsetDateTime;
use tokio::time::timeout;

use self::context::Context;
pub use self::{
    finding::{CheckReport, Finding, Limits, Severity},
    schema::schema_list,
};
use crate::{db::Database, diagnose, error::causes};
use finding::Outcome;

/// The result of a check that takes longer is not known.
const CHECK_LIMIT: Duration = Duration::from_secs(1);
/// Opening a session may take longer than a check: through TLS to a distant server it is four round trips.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// From the start of the examination to the last time at which a check may begin.
const TOTAL_LIMIT: Duration = Duration::from_secs(5);
/// Checks that run at the same time, each on a session of its own.
const LANES: usize = 3;

/// A check: its name, what it looks at, and its function.
struct Check {
    name: &'static str,
    about: &'static str,
    run: for<'c> fn(&'c mut Context) -> BoxFuture<'c, sqlx::Result<Outcome>>,
}

macro_rules! checks {
    ($($name:literal, $about:literal: $module:ident::$function:ident;)+) => {
        /// All checks, in the order of the report.
        const CHECKS: &[Check] =
            &[$(Check { name: $name, about: $about, run: |context| Box::pin($module::$function(context)) },)+];
    };
}

checks! {
    "server", "whether it can be written to": access::server;
    "role", "what this role may read and write": access::role;
    "settings", "the limits and settings of our sessions, and a pooler that loses them": server::settings;
    "notifications", "how long a notification takes": access::notifications;
    "clock", "the database's clock and the clock of this process": server::clock;
    "durability", "whether a confirmed commit survives a crash": server::durability;
    "encoding", "whether the database stores every text": server::encoding;
    "collation", "whether text is sorted as when the indexes were built": server::collation;
    "migrations", "whether the database is migrated to this release": schema::migrations;
    "schema", "tables, columns, constraints, triggers and functions, compared with this release": schema::objects;
    "indexes", "missing, changed, invalid and unused indexes": schema::indexes;
    "size", "the size of the tables": storage::size;
    "vacuum", "dead rows, and autovacuum with its settings": storage::vacuum;
    "wraparound", "how many transaction ids are used": storage::wraparound;
    "snapshots", "what keeps dead rows from being removed": sessions::snapshots;
    "connections", "sessions against their limits": sessions::connections;
    "locks", "statements that wait for locks": sessions::locks;
    "slots", "replication slots that keep log files": server::slots;
}

/// The result of an examination.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// How long it took.
    pub seconds: f64,
    /// The database, without the password.
    pub database: String,
    /// In the order of their list, each once.
    pub checks: Vec<CheckReport>,
}

impl Report {
    /// The worst severity, an error or a warning; `None` if nothing is wrong. A check whose result is not known counts as a
    /// warning.
    pub fn worst(&self) -> Option<Severity> {
        let found = self.checks.iter().flat_map(|check| &check.findings).map(|finding| finding.severity);
        let unknown = self.checks.iter().filter(|check| check.not_known.is_some()).map(|_| Severity::Warning);
        found.chain(unknown).filter(|severity| *severity > Severity::Note).max()
    }

    /// The number of findings of this severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.checks.iter().flat_map(|check| &check.findings).filter(|finding| finding.severity == severity).count()
    }
}

/// Examines a database. A database that cannot be reached is a finding as well. It opens at most four sessions, takes at
/// most 6 s, and changes nothing.
pub async fn examine(database: &Database, limits: &Limits) -> Report {
    let begun = Instant::now();
    let at = OffsetDateTime::now_utc();
    let checks = match connect(database, limits).await {
        Ok(first) => run_all(database, limits, first, begun).await,
        Err(outcome) => {
            let not_known =
                |check: &Check| CheckReport::not_known(check.name, check.about, "there is no session".into());
            let unreachable = CheckReport::found("connection", "whether the database can be reached", outcome);
            std::iter::once(unreachable).chain(CHECKS.iter().map(not_known)).collect()
        }
    };
    Report { at, seconds: begun.elapsed().as_secs_f64(), database: database.to_string(), checks }
}

/// Opens a session of the examination.
///
/// # Errors
/// The finding that there is no session.
async fn connect(database: &Database, limits: &Limits) -> Result<Context, Outcome> {
    let mut outcome = Outcome::default();
    match timeout(CONNECT_LIMIT, database.connect("doctor")).await {
        Ok(Ok(session)) => return Ok(Context { session, database: database.clone(), limits: limits.clone() }),
        Ok(Err(error)) => {
            let fix = diagnose::hint(&error).unwrap_or("check DATABASE_URL, and whether the server runs");
            outcome.error("unreachable", format!("no session can be opened: {}", causes(&error)), fix);
        }
        Err(_) => {
            let text = format!("no session can be opened: no response within {} s", CONNECT_LIMIT.as_secs());
            outcome.error("unreachable", text, "check the network and the load of the server");
        }
    }
    Err(outcome)
}

/// Runs all checks, some at the same time. The first session is that of the first lane.
async fn run_all(database: &Database, limits: &Limits, first: Context, begun: Instant) -> Vec<CheckReport> {
    let next = AtomicUsize::new(0);
    let mut first = Some(first);
    let lanes = (0..LANES).map(|_| run_lane(database, limits, first.take(), &next, begun));
    let mut done: Vec<(usize, CheckReport)> = join_all(lanes).await.into_iter().flatten().collect();
    for (index, check) in CHECKS.iter().enumerate() {
        if !done.iter().any(|(number, _)| *number == index) {
            let reason = "not known now: there was no session or no time for it".to_owned();
            done.push((index, CheckReport::not_known(check.name, check.about, reason)));
        }
    }
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, report)| report).collect()
}

/// Runs one check after the other on a session. A session whose check was not done in time still waits for it, so another
/// one is opened. Ends when all checks have begun, the time is over, or no session can be opened.
async fn run_lane(
    database: &Database,
    limits: &Limits,
    mut context: Option<Context>,
    next: &AtomicUsize,
    begun: Instant,
) -> Vec<(usize, CheckReport)> {
    let mut done = Vec::new();
    while begun.elapsed() < TOTAL_LIMIT {
        let Some(mut open) = (match context.take() {
            Some(open) => Some(open),
            None => connect(database, limits).await.ok(),
        }) else {
            break;
        };
        let index = next.fetch_add(1, Relaxed);
        let Some(check) = CHECKS.get(index) else { break };
        let report = match timeout(CHECK_LIMIT, (check.run)(&mut open)).await {
            Ok(Ok(outcome)) => {
                context = Some(open);
                CheckReport::found(check.name, check.about, outcome)
            }
            Ok(Err(error)) => CheckReport::not_known(check.name, check.about, format!("not known: {}", causes(&error))),
            Err(_) => CheckReport::not_known(check.name, check.about, "not known now (1 s)".into()),
        };
        done.push((index, report));
    }
    done
}
