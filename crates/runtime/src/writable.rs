//! Whether this process can write to its database, and which sessions may be used again.
//!
//! After a failover some sessions may hang on the old primary, which only reads, while others have reached the new one.
//! A process that cannot write must say that it is not ready, and its worker must not renew its lease: its results
//! cannot be stored, so other workers have to take its jobs.
//!
//! The state is fed by the errors of statements, and by probes of sessions: each new one, and every two seconds of use one
//! of the others.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sqlx::postgres::PgDatabaseError;

/// A session that was used this recently is used again without a ping: a round trip before each statement took a third
/// of all look-ups.
const TRUSTED: Duration = Duration::from_secs(1);
/// So long after the last probe the next session is probed, even one in steady use: a server that has become read-only
/// goes on replying to reads. A worker at rest pays for it with a statement every two seconds.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// While a server only reads, its sessions are used for this long. Then a new one may reach its successor.
const READ_ONLY_AGE: Duration = Duration::from_secs(1);
/// How long a refused write counts, such as on a full disk. The next refusal extends it.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// What to do with an idle session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reuse {
    AsItIs,
    /// When it replies.
    AfterPing,
    /// When it replies that it can write.
    AfterProbe,
    Never,
}

#[derive(Debug, Default)]
struct State {
    /// Since when sessions are found that can only read.
    read_only: Option<Instant>,
    /// Sessions that began before this may hang on a server that only reads.
    stale: Option<Instant>,
    /// When a session was last found dead: others may have died with it.
    dead: Option<Instant>,
    /// When a session was last probed.
    probed: Option<Instant>,
    /// When a write was last refused, and why.
    refused: Option<(Instant, String)>,
}

/// One for the process: it has one database, and the errors of statements do not say which pool they belong to.
static STATE: Mutex<State> =
    Mutex::new(State { read_only: None, stale: None, dead: None, probed: None, refused: None });

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why this process cannot write now; `None` when it can as far as it knows.
pub fn refusal() -> Option<String> {
    state().refusal(Instant::now())
}

/// Makes sure that the sessions of this process did not end up on a server that only reads.
///
/// A full disk does not count: it is the same for every worker, and one that can still take the jobs of others would
/// only run them twice.
///
/// # Errors
/// They did.
pub fn require_primary() -> sqlx::Result<()> {
    match state().read_only {
        Some(_) => Err(sqlx::Error::Io(std::io::Error::other(READ_ONLY))),
        None => Ok(()),
    }
}

pub(super) const READ_ONLY: &str = "the database is read-only: a standby, or a primary that was replaced";

/// Takes note of a statement's error.
pub(super) fn note(error: &sqlx::Error) {
    let now = Instant::now();
    if is_read_only(error) {
        state().found(true, now);
    } else if is_dead(error) || matches!(error, sqlx::Error::Io(_)) {
        // One that is silent counts as well: others over its network may be.
        state().dead = Some(now);
    } else if let Some(reason) = refused(error) {
        state().refused = Some((now, reason));
    }
}

/// Whether a server was found to be read-only since then: other sessions from before may hang on it.
pub(super) fn failed_over_since(then: Instant) -> bool {
    state().stale.is_some_and(|stale| stale >= then)
}

/// Takes note of a session's probe.
pub(super) fn found(read_only: bool) {
    state().found(read_only, Instant::now());
}

/// Whether a session of this age that was idle for so long may be used.
pub(super) fn reuse(age: Duration, idle: Duration) -> Reuse {
    state().reuse(age, idle, Instant::now())
}

impl State {
    fn found(&mut self, read_only: bool, now: Instant) {
        self.probed = Some(now);
        if read_only {
            self.read_only.get_or_insert(now);
            self.stale = Some(now);
        } else {
            self.read_only = None;
        }
    }

    fn reuse(&mut self, age: Duration, idle: Duration, now: Instant) -> Reuse {
        let since = |then: Option<Instant>| then.map(|then| now.saturating_duration_since(then));
        // Sessions that a read-only server gave us while it has no successor are used for a moment: they can read.
        let is_stale = if self.read_only.is_some() {
            age > READ_ONLY_AGE
        } else {
            since(self.stale).is_some_and(|stale| age >= stale)
        };
        if is_stale {
            return Reuse::Never;
        }
        let is_suspect = since(self.dead).is_some_and(|dead| idle >= dead);
        if since(self.probed).is_none_or(|probed| probed >= PROBE_EVERY) {
            // Now, not when the probe ends: one at a time is enough.
            self.probed = Some(now);
            return Reuse::AfterProbe;
        }
        if idle > TRUSTED || is_suspect { Reuse::AfterPing } else { Reuse::AsItIs }
    }

    fn refusal(&self, now: Instant) -> Option<String> {
        if self.read_only.is_some() {
            return Some(READ_ONLY.to_owned());
        }
        let (at, reason) = self.refused.as_ref()?;
        (now.saturating_duration_since(*at) < REFUSED_FOR).then(|| reason.clone())
    }
}

fn postgres(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}

/// The statement did not run, or its outcome is unknown, because its session ended.
pub(super) fn is_dead(error: &sqlx::Error) -> bool {
    match error {
        // A statement that only took too long may still run.
        sqlx::Error::Io(error) => error.kind() != std::io::ErrorKind::TimedOut,
        // 57P01 to 57P05: the server stops or ended the session; 25P03 and 25P04: idle or open for too long; class 08:
        // what a pooler says about a session of its own.
        _ => postgres(error)
            .map(PgDatabaseError::code)
            .is_some_and(|code| code.starts_with("57P") || code.starts_with("08") || matches!(code, "25P03" | "25P04")),
    }
}

fn is_read_only(error: &sqlx::Error) -> bool {
    postgres(error).is_some_and(|error| error.code() == "25006")
}

/// Whether a session may be used after this error. One that can only read, or whose answer is unknown, may not.
pub(super) fn is_usable_after(error: &sqlx::Error) -> bool {
    postgres(error).is_some() && !is_dead(error) && !is_read_only(error)
}

/// The server has run out of transaction ids and takes no writes before a VACUUM. Its SQLSTATE, 54000, is also that of
/// a row too large for an index; the server's routine tells them apart in every language.
pub fn is_out_of_ids(error: &sqlx::Error) -> bool {
    postgres(error).is_some_and(|error| {
        error.code() == "54000" && error.routine().is_some_and(|routine| routine.starts_with("GetNew"))
    })
}

/// Why the database takes no writes at all, from anyone.
fn refused(error: &sqlx::Error) -> Option<String> {
    let refusal = postgres(error)?;
    // 53100: the disk is full; 58030: the server cannot read or write its files.
    let counts = matches!(refusal.code(), "53100" | "58030") || is_out_of_ids(error);
    counts.then(|| format!("the database cannot write: {}", refusal.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(10);

    fn after(now: Instant, seconds: f64) -> Instant {
        now + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn one_session_is_probed_every_two_seconds_and_idle_ones_are_pinged() {
        let (mut state, now) = (State::default(), Instant::now());
        let age = Duration::from_secs(60);
        assert_eq!(state.reuse(age, MOMENT, now), Reuse::AfterProbe, "none was probed yet");
        assert_eq!(state.reuse(age, MOMENT, now), Reuse::AsItIs);
        assert_eq!(state.reuse(age, MOMENT, after(now, 1.9)), Reuse::AsItIs);
        assert_eq!(state.reuse(age, MOMENT, after(now, 2.0)), Reuse::AfterProbe);
        assert_eq!(state.reuse(age, Duration::from_millis(1001), after(now, 2.0)), Reuse::AfterPing);
    }

    #[test]
    fn after_one_died_those_that_were_idle_then_are_pinged() {
        let (mut state, now) = (State::default(), Instant::now());
        state.found(false, now);
        state.dead = Some(now);
        let later = after(now, 0.5);
        assert_eq!(state.reuse(Duration::from_secs(9), Duration::from_millis(600), later), Reuse::AfterPing);
        assert_eq!(state.reuse(Duration::from_secs(9), Duration::from_millis(400), later), Reuse::AsItIs);
    }

    #[test]
    fn after_a_failover_no_session_from_before_is_used() {
        let (mut state, now) = (State::default(), Instant::now());
        state.found(true, now);
        assert!(state.refusal(now).is_some());
        assert_eq!(state.reuse(Duration::from_millis(900), MOMENT, after(now, 0.1)), Reuse::AsItIs, "it can read");
        assert_eq!(state.reuse(Duration::from_millis(1100), MOMENT, after(now, 0.1)), Reuse::Never);
        let reached = after(now, 3.0);
        state.found(false, reached);
        assert_eq!(state.refusal(reached), None);
        assert_eq!(state.reuse(Duration::from_millis(3100), MOMENT, reached), Reuse::Never, "older than the failover");
        assert_eq!(state.reuse(Duration::from_millis(100), MOMENT, reached), Reuse::AsItIs);
    }

    #[test]
    fn a_refused_write_counts_for_five_seconds() {
        let now = Instant::now();
        let state = State { refused: Some((now, "the disk is full".into())), ..State::default() };
        assert_eq!(state.refusal(after(now, 4.9)).as_deref(), Some("the disk is full"));
        assert_eq!(state.refusal(after(now, 5.0)), None);
    }
}
