//! Log events and counters of probes. Their names and fields are those of the original service.
//!
//! The status `started` precedes the write; `finished` follows its commit. The counters count this process only.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{counter, describe_counter};
use uuid::Uuid;

use super::grid::{Commands, Position, Probe};

/// A counter, and the event that logs each increment. It keeps its own value, because a metric cannot be read back.
struct EventCounter {
    name: &'static str,
    event: &'static str,
    value: AtomicU64,
}

impl EventCounter {
    const fn new(name: &'static str, event: &'static str) -> Self {
        Self { name, event, value: AtomicU64::new(0) }
    }

    fn increment(&self) {
        let new_value = self.value.fetch_add(1, Ordering::Relaxed) + 1;
        counter!(self.name).increment(1);
        tracing::info!(operation = "increment", new_value = new_value as f64, "{}", self.event);
    }
}

static CREATED: EventCounter = EventCounter::new("probe_created_total", "PROBE_CREATED_TOTAL");
static COMMANDS: EventCounter = EventCounter::new("probe_commands_total", "PROBE_COMMANDS_TOTAL");
static INVALID_SETUPS: EventCounter = EventCounter::new("probe_invalid_setups_total", "PROBE_INVALID_SETUPS_TOTAL");
static INVALID_COMMANDS: EventCounter =
    EventCounter::new("probe_invalid_commands_total", "PROBE_INVALID_COMMANDS_TOTAL");

/// Describes the counters, and sets them to 0.
pub fn describe() {
    describe_counter!(CREATED.name, "Probes created.");
    describe_counter!(
        COMMANDS.name,
        "Command strings applied and committed. Each counts once, regardless of its length."
    );
    describe_counter!(INVALID_SETUPS.name, "Setups refused because a field is invalid (422).");
    describe_counter!(
        INVALID_COMMANDS.name,
        "Command strings refused: a field or a command is invalid, the probe is unknown, or it would leave its grid."
    );
    for count in [&CREATED, &COMMANDS, &INVALID_SETUPS, &INVALID_COMMANDS] {
        counter!(count.name).absolute(0);
    }
}

/// Logs `PROBE_CREATED`; counts it if it is `finished`.
pub fn record_created(status: &'static str, probe: &Probe, grid_id: Uuid) {
    if status == FINISHED {
        CREATED.increment();
    }
    let Probe { id, grid, position } = probe;
    tracing::info!(
        status,
        %grid_id,
        grid_x = grid.x,
        grid_y = grid.y,
        probe_id = %id,
        probe_x = position.x,
        probe_y = position.y,
        probe_direction = position.direction.into_str(),
        "PROBE_CREATED"
    );
}

/// Logs `PROBE_COMMAND_SENT`; counts it if it is `finished`.
pub fn record_command_sent(status: &'static str, id: Uuid, commands: &Commands, from: Position, to: Position) {
    if status == FINISHED {
        COMMANDS.increment();
    }
    tracing::info!(
        status,
        probe_id = %id,
        command = &*truncate(commands),
        from_x = from.x,
        from_y = from.y,
        from_direction = from.direction.into_str(),
        to_x = to.x,
        to_y = to.y,
        to_direction = to.direction.into_str(),
        "PROBE_COMMAND_SENT"
    );
}

/// The status before the write.
pub const STARTED: &str = "started";
/// The status after the commit.
pub const FINISHED: &str = "finished";

/// Logs and counts a refused setup. `errors` contains the reasons.
pub fn record_invalid_setup(errors: &str) {
    INVALID_SETUPS.increment();
    tracing::info!(errors = &*truncate(errors), "PROBE_INVALID_SETUP");
}

/// Logs and counts a refused command. `code` and `message` are those of the response; `code` is empty if the body
/// itself is invalid.
pub fn record_invalid_command(id: Option<Uuid>, code: &str, message: &str) {
    INVALID_COMMANDS.increment();
    let probe_id = id.map(|id| id.to_string());
    tracing::info!(probe_id, code, detail = &*truncate(message), "PROBE_INVALID_COMMAND");
}

/// The first characters of a text: a body of 1 MiB must not become a log line of that size.
fn truncate(text: impl std::fmt::Display) -> String {
    const MAX_CHARACTERS: usize = 256;
    let mut text = text.to_string();
    if let Some((end, _)) = text.char_indices().nth(MAX_CHARACTERS) {
        let length = text.chars().count();
        text.truncate(end);
        text.push_str(&format!("… ({length} characters)"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_truncated_with_their_length() {
        assert_eq!(truncate("MRM"), "MRM");
        assert_eq!(truncate("é".repeat(256)), "é".repeat(256));
        assert_eq!(truncate("M".repeat(1 << 20)), format!("{}… (1048576 characters)", "M".repeat(256)));
    }
}
