//! Write state: whether this process can write to its database, and which pooled sessions may be reused.
//!
//! After a failover, some sessions may still be connected to the old, read-only primary, and others to the new one. A
//! process that cannot write must report that it is not ready. Its worker must not renew its lease: it cannot store
//! results, so other workers have to take over its jobs.
//!
//! Two sources update the state: errors of statements, and probes of sessions. Each new session is probed, and one
//! session in use every 2 s. The polls of an idle worker return the same, in place of a probe.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use sqlx::postgres::PgDatabaseError;

use crate::mutex::lock;

/// A session that was idle for at most this long is reused without a ping. A ping before each statement took a third of
/// the time of look-ups.
const PING_AFTER: Duration = Duration::from_secs(1);
/// The interval of probes. Sessions in steady use are probed too, because a server that has become read-only still
/// responds to reads. The polls of an idle worker are probes themselves.
pub const PROBE_EVERY: Duration = Duration::from_secs(2);
/// The longest that a session to a read-only server is used. After that, a new session may reach the new primary.
const MAX_READ_ONLY_AGE: Duration = Duration::from_secs(1);
/// How long this process counts as unable to write after a refused write, such as on a full disk. Each refusal starts
/// the time again.
const REFUSAL_LIFETIME: Duration = Duration::from_secs(5);

/// Whether an idle session may be reused, and after which check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reuse {
    Immediately,
    /// If it responds to a ping.
    AfterPing,
    /// If a probe shows that it can write.
    AfterProbe,
    Never,
}

#[derive(Debug, Default)]
struct WriteState {
    /// The time since which probes find a read-only server.
    read_only: Option<Instant>,
    /// Sessions opened before this time may still be connected to a read-only server.
    stale: Option<Instant>,
    /// When a session was last found dead. Others may have died at the same time.
    dead: Option<Instant>,
    /// When a session was last probed.
    probed: Option<Instant>,
    /// When a write was last refused, and why.
    refused: Option<(Instant, String)>,
}

/// One state per process: it has one database, and the error of a statement does not name its pool.
static STATE: Mutex<WriteState> =
    Mutex::new(WriteState { read_only: None, stale: None, dead: None, probed: None, refused: None });

/// The reason why this process cannot write now; `None` if it can as far as it knows.
pub(super) fn write_refusal() -> Option<String> {
    lock(&STATE).refusal(Instant::now())
}

/// Checks that the sessions of this process reach a primary.
///
/// A full disk does not count, because it affects every worker. A worker that took over the jobs of others would only
/// run them twice.
///
/// # Errors
/// When a session has reached a read-only server, and none has reached a primary since.
pub fn require_primary() -> sqlx::Result<()> {
    refuse_read_only(lock(&STATE).read_only.is_some())
}

/// Refuses a read-only server: only a primary accepts writes and sends notifications.
pub(super) fn refuse_read_only(read_only: bool) -> sqlx::Result<()> {
    if read_only { Err(sqlx::Error::Io(std::io::Error::other(READ_ONLY))) } else { Ok(()) }
}

const READ_ONLY: &str = "the database is read-only: a standby, or a primary that was replaced";

/// Updates the state with the error of a statement.
pub(super) fn record_error(error: &sqlx::Error) {
    let now = Instant::now();
    if is_read_only(error) {
        lock(&STATE).record_probe(true, now);
    } else if is_dead(error) || matches!(error, sqlx::Error::Io(_)) {
        // A time-out counts too: other sessions over the same network may be dead.
        lock(&STATE).dead = Some(now);
    } else if let Some(reason) = refusal_reason(error) {
        lock(&STATE).refused = Some((now, reason));
    }
}

/// Whether a read-only server was found after `then`. Sessions from before may still be connected to it.
pub(super) fn failed_over_since(then: Instant) -> bool {
    lock(&STATE).stale.is_some_and(|stale| stale >= then)
}

/// Updates the state with the result of a probe: whether a session can only read.
pub fn record_probe(read_only: bool) {
    lock(&STATE).record_probe(read_only, Instant::now());
}

/// Whether a session of this age and idle time may be reused.
pub(super) fn reuse(age: Duration, idle: Duration) -> Reuse {
    lock(&STATE).reuse(age, idle, Instant::now())
}

impl WriteState {
    fn record_probe(&mut self, read_only: bool, now: Instant) {
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
        // Without a new primary, sessions to the read-only server are used for a moment, because they can read.
        let is_stale = if self.read_only.is_some() {
            age > MAX_READ_ONLY_AGE
        } else {
            since(self.stale).is_some_and(|stale| age >= stale)
        };
        if is_stale {
            return Reuse::Never;
        }
        let is_suspect = since(self.dead).is_some_and(|dead| idle >= dead);
        if since(self.probed).is_none_or(|probed| probed >= PROBE_EVERY) {
            // Set when the probe starts, so that only one runs at a time.
            self.probed = Some(now);
            return Reuse::AfterProbe;
        }
        if idle > PING_AFTER || is_suspect { Reuse::AfterPing } else { Reuse::Immediately }
    }

    fn refusal(&self, now: Instant) -> Option<String> {
        if self.read_only.is_some() {
            return Some(READ_ONLY.to_owned());
        }
        let (at, reason) = self.refused.as_ref()?;
        (now.saturating_duration_since(*at) < REFUSAL_LIFETIME).then(|| reason.clone())
    }
}

fn postgres(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}

/// Whether the session of a statement ended. The statement did not run, or its outcome is unknown.
pub(super) fn is_dead(error: &sqlx::Error) -> bool {
    match error {
        // After a time-out, the session may still be running the statement.
        sqlx::Error::Io(error) => error.kind() != std::io::ErrorKind::TimedOut,
        // 57P01 to 57P05: the server stops or ended the session. 25P03 and 25P04: the session was idle or open for too
        // long. Class 08: a pooler reports an error of its server session.
        _ => postgres(error)
            .map(PgDatabaseError::code)
            .is_some_and(|code| code.starts_with("57P") || code.starts_with("08") || matches!(code, "25P03" | "25P04")),
    }
}

fn is_read_only(error: &sqlx::Error) -> bool {
    postgres(error).is_some_and(|error| error.code() == "25006")
}

/// Whether a session may be reused after this error. One that can only read, or whose state is unknown, may not.
pub(super) fn is_usable_after(error: &sqlx::Error) -> bool {
    postgres(error).is_some() && !is_dead(error) && !is_read_only(error)
}

/// Whether the server has run out of transaction ids and accepts no writes before a VACUUM. Its SQLSTATE, 54000, is also
/// that of a row too large for an index. The name of the server's routine distinguishes them in every language.
pub fn is_out_of_ids(error: &sqlx::Error) -> bool {
    postgres(error).is_some_and(|error| {
        error.code() == "54000" && error.routine().is_some_and(|routine| routine.starts_with("GetNew"))
    })
}

/// The reason if the database accepts no writes from any client.
fn refusal_reason(error: &sqlx::Error) -> Option<String> {
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
        let (mut state, now) = (WriteState::default(), Instant::now());
        let age = Duration::from_secs(60);
        assert_eq!(state.reuse(age, MOMENT, now), Reuse::AfterProbe, "none was probed yet");
        assert_eq!(state.reuse(age, MOMENT, now), Reuse::Immediately);
        assert_eq!(state.reuse(age, MOMENT, after(now, 1.9)), Reuse::Immediately);
        assert_eq!(state.reuse(age, MOMENT, after(now, 2.0)), Reuse::AfterProbe);
        assert_eq!(state.reuse(age, Duration::from_millis(1001), after(now, 2.0)), Reuse::AfterPing);
    }

    #[test]
    fn after_a_dead_session_those_that_were_idle_at_the_time_are_pinged() {
        let (mut state, now) = (WriteState::default(), Instant::now());
        state.record_probe(false, now);
        state.dead = Some(now);
        let later = after(now, 0.5);
        assert_eq!(state.reuse(Duration::from_secs(9), Duration::from_millis(600), later), Reuse::AfterPing);
        assert_eq!(state.reuse(Duration::from_secs(9), Duration::from_millis(400), later), Reuse::Immediately);
    }

    #[test]
    fn after_a_failover_no_session_from_before_is_used() {
        let (mut state, now) = (WriteState::default(), Instant::now());
        state.record_probe(true, now);
        assert!(state.refusal(now).is_some());
        assert_eq!(state.reuse(Duration::from_millis(900), MOMENT, after(now, 0.1)), Reuse::Immediately, "it can read");
        assert_eq!(state.reuse(Duration::from_millis(1100), MOMENT, after(now, 0.1)), Reuse::Never);
        let reached = after(now, 3.0);
        state.record_probe(false, reached);
        assert_eq!(state.refusal(reached), None);
        assert_eq!(state.reuse(Duration::from_millis(3100), MOMENT, reached), Reuse::Never, "older than the failover");
        assert_eq!(state.reuse(Duration::from_millis(100), MOMENT, reached), Reuse::Immediately);
    }

    #[test]
    fn a_refused_write_counts_for_five_seconds() {
        let now = Instant::now();
        let state = WriteState { refused: Some((now, "the disk is full".into())), ..WriteState::default() };
        assert_eq!(state.refusal(after(now, 4.9)).as_deref(), Some("the disk is full"));
        assert_eq!(state.refusal(after(now, 5.0)), None);
    }
}
