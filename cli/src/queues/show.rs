//! `millrace queues show`: one queue with its dead letters and the actions of operators.

use anyhow::{Context as _, Result};
use queue::{
    Operator,
    operator::{audit::Action, groups::ErrorGroup, overview::QueueOverview},
};
use serde_json::json;

use crate::{
    audit, dead,
    output::{Screen, Style, format_duration, format_time, one_line, print, print_json, shell_quote},
    status::queues,
    why::checks,
};

/// Prints a queue, its groups of dead letters, and its newest actions.
///
/// # Errors
/// When the database cannot be used, or the queue is unknown.
pub(super) async fn show(operator: &Operator, name: &str, limit: u32, json: bool) -> Result<()> {
    let queue = operator.queue_overview(name).await?;
    let queue = queue.with_context(|| super::unknown(name))?;
    let groups = operator.dead_groups(Some(name)).await?;
    let actions = operator.actions(name, limit).await?;
    if json {
        return print_json(&json!({ "queue": queue, "checks": queue.checks(), "dead": groups, "actions": actions }));
    }
    print(&text(&queue, &groups, &actions, Screen::of_stdout()))
}

fn text(queue: &QueueOverview, groups: &[ErrorGroup], actions: &[Action], screen: Screen) -> String {
    let status = &queue.status;
    let mut text = queues(std::slice::from_ref(queue), screen);
    if let Some(at) = status.paused_at {
        let by = status.paused_by.as_deref().unwrap_or("an unknown operator");
        let until =
            status.resume_at.map_or_else(|| "until it is resumed".into(), |at| format!("until {}", format_time(at)));
        let reason = one_line(status.reason.as_deref().unwrap_or("no reason is recorded"), 300);
        let paused = format!("paused since {} {until} by {}: {reason}", format_time(at), one_line(by, 60));
        text.push_str(&format!("\n{}\n", Style::Warning.paint(&paused, screen)));
        text.push_str(&format!("    millrace queues resume {} --reason '…'\n", shell_quote(&status.name)));
    }
    if let Some(error) = &status.claim_error {
        let failing = format!(
            "claims of {} of {} workers fail: {}",
            status.failing_workers,
            status.workers,
            one_line(error, 300)
        );
        text.push_str(&format!("\n{}\n", Style::Bad.paint(&failing, screen)));
    }
    if let Some(seconds) = queue.mean_run_seconds {
        let mean = if seconds < 10.0 { format!("{:.0} ms", seconds * 1000.0) } else { format_duration(seconds) };
        text.push_str(&format!("\nA run takes {mean} on average (last 15 min).\n"));
    }
    text.push_str("\nWhy jobs wait\n");
    text.push_str(&checks(&queue.checks(), screen));
    text.push_str(&format!("\nDead letters\n{}", dead::text(groups, screen)));
    text.push_str("\nActions of operators, newest first\n");
    text + &audit::text(actions, screen)
}
