//! What the log and the metrics tell of probes, in the names and fields that the seed's readers know.
//!
//! `started` is what is about to be recorded; `finished` is told only after its commit. Counters are of this process.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
};

use metrics::{counter, describe_counter};
use uuid::Uuid;

use super::grid::{Commands, Probe, Stand};

/// A counter and the event that tells each of its steps. Its value is kept here: a metric cannot be read.
struct Count {
    name: &'static str,
    event: &'static str,
    value: AtomicU64,
}

impl Count {
    const fn new(name: &'static str, event: &'static str) -> Self {
        Self { name, event, value: AtomicU64::new(0) }
    }

    fn increment(&self) {
        let new_value = self.value.fetch_add(1, Ordering::Relaxed) + 1;
        counter!(self.name).increment(1);
        tracing::info!(operation = "increment", new_value = new_value as f64, "{}", self.event);
    }
}

static CREATED: Count = Count::new("probe_created_total", "PROBE_CREATED_TOTAL");
static COMMANDS: Count = Count::new("probe_commands_total", "PROBE_COMMANDS_TOTAL");
static INVALID_SETUPS: Count = Count::new("probe_invalid_setups_total", "PROBE_INVALID_SETUPS_TOTAL");
static INVALID_COMMANDS: Count = Count::new("probe_invalid_commands_total", "PROBE_INVALID_COMMANDS_TOTAL");

/// Says what each counter means, and shows it at 0.
pub fn describe() {
    describe_counter!(CREATED.name, "Probes recorded.");
    describe_counter!(COMMANDS.name, "Command strings obeyed and recorded, each counted once whatever its length.");
    describe_counter!(INVALID_SETUPS.name, "Setups refused because a field is wrong (422).");
    describe_counter!(
        INVALID_COMMANDS.name,
        "Command strings refused: a field or a letter is wrong, or the probe is unknown or would leave its grid."
    );
    for count in [&CREATED, &COMMANDS, &INVALID_SETUPS, &INVALID_COMMANDS] {
        counter!(count.name).absolute(0);
    }
}

/// `PROBE_CREATED`, `started` or `finished`.
pub fn created(status: &'static str, probe: &Probe, grid_id: Uuid) {
    if status == FINISHED {
        CREATED.increment();
    }
    let Probe { id, grid, stand } = probe;
    tracing::info!(
        status,
        %grid_id,
        grid_x = grid.x,
        grid_y = grid.y,
        probe_id = %id,
        probe_x = stand.x,
        probe_y = stand.y,
        probe_direction = stand.direction.name(),
        "PROBE_CREATED"
    );
}

/// `PROBE_COMMAND_SENT`, `started` or `finished`.
pub fn command_sent(status: &'static str, id: Uuid, commands: &Commands, from: Stand, to: Stand) {
    if status == FINISHED {
        COMMANDS.increment();
    }
    tracing::info!(
        status,
        probe_id = %id,
        command = &*cut(commands),
        from_x = from.x,
        from_y = from.y,
        from_direction = from.direction.name(),
        to_x = to.x,
        to_y = to.y,
        to_direction = to.direction.name(),
        "PROBE_COMMAND_SENT"
    );
}

/// Before the commit.
pub const STARTED: &str = "started";
/// After it.
pub const FINISHED: &str = "finished";

/// A setup was refused, and nothing recorded; `errors` says why.
pub fn invalid_setup(errors: &str) {
    INVALID_SETUPS.increment();
    tracing::info!(errors = &*cut(errors), "PROBE_INVALID_SETUP");
}

/// A command was refused, and nothing recorded; `code` and `message` are the answer's, and empty when not even its fields
/// were right.
pub fn invalid_command(id: Option<Uuid>, code: &str, message: &str) {
    INVALID_COMMANDS.increment();
    let probe_id = id.map(|id| id.to_string());
    tracing::info!(probe_id, code, detail = &*cut(message), "PROBE_INVALID_COMMAND");
}

/// The beginning of a text: a body of 1 MiB must not become a line of as much.
fn cut(text: impl std::fmt::Display) -> String {
    /// Characters of it, at most.
    const MOST: usize = 256;
    /// Writes until it is full, and counts the rest.
    struct Beginning(String, usize);

    impl std::fmt::Write for Beginning {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            for c in text.chars() {
                if self.1 < MOST {
                    self.0.push(c);
                }
                self.1 += 1;
            }
            Ok(())
        }
    }

    let mut beginning = Beginning(String::new(), 0);
    // Infallible: writing to a String.
    let _ = write!(beginning, "{text}");
    let Beginning(mut text, length) = beginning;
    if length > MOST {
        let _ = write!(text, "… ({length} characters)");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_with_a_mark() {
        assert_eq!(cut("MRM"), "MRM");
        assert_eq!(cut("é".repeat(256)), "é".repeat(256));
        assert_eq!(cut("M".repeat(1 << 20)), format!("{}… (1048576 characters)", "M".repeat(256)));
    }
}
