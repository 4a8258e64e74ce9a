//! `millrace transaction`: the timeline of a transaction.

use anyhow::{Context as _, Result};
use clap::Args;
use jobs::transactions::timeline::{Timeline, TimelineEvent};
use time::{OffsetDateTime, UtcOffset, format_description::BorrowedFormatItem, macros::format_description};

use crate::{
    operator::app,
    output::{
        Screen, Style, one_line, print_value, shell_quote,
        table::{Cell, Column, render},
    },
};

#[derive(Args)]
#[command(after_help = "\
Times are in UTC; AFTER is the time since the line before. --json has the details of each event.

Examples:
  millrace transaction txn_2026_000123
  millrace transaction txn_2026_000123 --json | jq '.events[] | select(.event == \"run_failed\")'")]
pub(crate) struct Arguments {
    /// The transaction's id, as its sender has it
    #[arg(value_name = "TRANSACTION")]
    id: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs `millrace transaction`.
///
/// # Errors
/// When the database cannot be used, or there is no such transaction.
pub(crate) async fn program(Arguments { id, json }: Arguments) -> Result<()> {
    let timeline = app().await?.timeline(&id).await?;
    let timeline = timeline.with_context(|| {
        format!("there is no transaction {id:?}; `millrace find {}` looks for other ids", shell_quote(&id))
    })?;
    print_value(json, &timeline, || text(&timeline, Screen::of_stdout()))
}

fn text(timeline: &Timeline, screen: Screen) -> String {
    const COLUMNS: [Column; 4] =
        [Column::fixed("AT"), Column::optional("AFTER", 1), Column::fixed("EVENT"), Column::fixed("WHAT")];
    let mut before: Option<OffsetDateTime> = None;
    let rows = timeline.events.iter().map(|event| {
        let after = before.replace(event.at).map(|before| format_after((event.at - before).as_seconds_f64()));
        let style = style(event);
        vec![
            format_time(event.at).into(),
            after.unwrap_or_default().into(),
            Cell::new(&event.event.replace('_', " "), style),
            Cell::new(&what(event), style),
        ]
    });
    let mut text = format!(
        "{}: {}\njob {}\n",
        one_line(&timeline.transaction_id, 100),
        timeline.status,
        one_line(&timeline.job, 60)
    );
    if timeline.conflicts > 0 {
        text.push_str(&format!("conflicts {}; the first 20 different payloads are listed\n", timeline.conflicts));
    }
    text.push('\n');
    text.push_str(&render(&COLUMNS, rows, screen));
    text
}

/// The sentence of an event. The first one has the ids of the request, by which logs and traces are searched.
fn what(event: &TimelineEvent) -> String {
    let id = |field: &str, name: &str| event.details[field].as_str().map(|id| format!("; {name} {id}"));
    let ids = [id("correlation_id", "correlation id"), id("trace_id", "trace")];
    let shown = ids.into_iter().flatten().filter(|_| event.event == "accepted");
    event.text.clone() + &shown.collect::<String>()
}

fn style(event: &TimelineEvent) -> Style {
    match event.event {
        "processed" => Style::Good,
        "failed" | "run_failed" | "rescued" => Style::Bad,
        "conflict" | "operator" | "snoozed" | "cancelled" | "discarded" => Style::Warning,
        _ => Style::Plain,
    }
}

fn format_after(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 0.9995 => format!("+{:.0} ms", seconds * 1000.0),
        seconds if seconds < 120.0 => format!("+{seconds:.1} s"),
        seconds => format!("+{}", crate::output::format_duration(seconds)),
    }
}

/// Formats a time in UTC, to the millisecond.
fn format_time(time: OffsetDateTime) -> String {
    const MILLIS: &[BorrowedFormatItem<'_>] =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    time.to_offset(UtcOffset::UTC).format(MILLIS).unwrap_or_default()
}
