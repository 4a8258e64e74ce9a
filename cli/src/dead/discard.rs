//! `millrace dead discard`: gives dead letters up for good.

use anyhow::Result;
use clap::Args;
use queue::Operator;
use serde_json::json;

use super::selection::{SelectionArguments, describe, select};
use crate::{
    operator::{order, parse_reason},
    output::print_value,
};

#[derive(Args)]
#[command(after_help = "\
A discarded job has the state cancelled: it is no dead letter any more, and only `millrace jobs replay ID` runs it again.

Exits with 0 when dead letters were discarded, and with 1 if nothing is selected.

Examples:
  millrace dead discard --queue process_transaction --group 3f1c02aa --dry-run
  millrace dead discard --queue process_transaction --group 3f1c02aa --reason 'sent twice by mistake'")]
pub(super) struct Arguments {
    #[command(flatten)]
    selection: SelectionArguments,
    /// Discard at most this many jobs, the oldest first
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=i32::MAX.into()))]
    limit: u32,
    /// The reason, shown to other operators
    #[arg(long, required_unless_present = "dry_run", value_parser = parse_reason)]
    reason: Option<String>,
    /// Print the number of selected jobs and five of them, and discard none
    #[arg(long)]
    dry_run: bool,
}

/// Discards the selected dead letters. Returns whether there was any.
///
/// # Errors
/// When the database cannot be used, or nothing is selected.
pub(super) async fn run(operator: &Operator, arguments: Arguments, json: bool) -> Result<bool> {
    let Arguments { selection, limit, reason, dry_run } = arguments;
    let selection = selection.selection();
    let selected = select(operator, &selection).await?;
    if dry_run {
        let count = selected.count.min(limit.into());
        let at_least = if selected.is_capped && count == selected.count { "at least " } else { "" };
        let plan = || describe(&selected) + &format!("Would discard {at_least}{count} of them.\n");
        print_value(json, &selected, plan)?;
        return Ok(true);
    }
    let order = order(reason.as_deref().unwrap_or_default())?;
    let discarded = operator.discard_dead(&selection, limit, &order).await?;
    let result = || format!("{discarded} dead letters discarded.\n");
    print_value(json, &json!({ "discarded": discarded }), result)?;
    Ok(discarded > 0)
}
