//! `millrace audit`: what operators did.

use anyhow::Result;
use clap::Args;
use queue::operator::audit::Action;

use crate::{
    operator::connect,
    output::{
        Screen, format_time, print_value,
        table::{Column, render},
    },
};

#[derive(Args)]
#[command(after_help = "\
Every action of an operator is recorded in the transaction that does it, and kept. MILLRACE_ACTOR sets the name that is
recorded for commands; it is user@host otherwise.

Examples:
  millrace audit
  millrace audit --target process_transaction
  millrace audit --before 1200 --limit 200 --json")]
pub(crate) struct Arguments {
    /// List only actions on this queue, job, worker, replay or schedule
    #[arg(long)]
    target: Option<String>,
    /// List at most this many actions
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// List only actions before this id; give the last id of the previous page
    #[arg(long, value_name = "ID")]
    before: Option<i64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs `millrace audit`.
///
/// # Errors
/// When the database cannot be used, or the output cannot be written.
pub(crate) async fn program(Arguments { target, limit, before, json }: Arguments) -> Result<()> {
    let page = connect().await?.list_actions(target.as_deref(), before, limit).await?;
    print_value(json, &page.rows, || text(&page.rows, Screen::of_stdout()))?;
    if let Some(next) = page.next {
        eprintln!("note: for older actions add --before {next}");
    }
    Ok(())
}

/// The actions, newest first.
pub(crate) fn text(actions: &[Action], screen: Screen) -> String {
    const COLUMNS: [Column; 9] = [
        Column::optional("ID", 3),
        Column::fixed("AT"),
        Column::fixed("ACTOR"),
        Column::optional("VIA", 2),
        Column::fixed("ACTION"),
        Column::fixed("TARGET"),
        Column::optional("COUNT", 1),
        Column::text("REASON"),
        Column::optional("FILTER", 4),
    ];
    if actions.is_empty() {
        return "No action is recorded.\n".into();
    }
    let rows = actions.iter().map(|action| {
        vec![
            action.id.to_string().into(),
            format_time(action.at).into(),
            action.actor.as_str().into(),
            action.via.as_str().into(),
            action.action.as_str().into(),
            action.target.as_str().into(),
            action.count.to_string().into(),
            action.reason.as_str().into(),
            action.filter.as_ref().map(filter).unwrap_or_default().into(),
        ]
    });
    render(&COLUMNS, rows, screen)
}

/// The values of a filter that are set.
fn filter(filter: &serde_json::Value) -> String {
    let Some(fields) = filter.as_object() else { return filter.to_string() };
    let set = fields.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| format!("{name}={value}"));
    set.collect::<Vec<_>>().join(" ")
}
