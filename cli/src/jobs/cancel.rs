//! `millrace jobs cancel`: cancels jobs by their ids, or all that a filter selects.

use anyhow::{Result, ensure};
use clap::Args;
use queue::{
    Operator,
    filter::Filter,
    operator::{audit::Order, jobs::LiveJobs},
    status::{Cancelled, State},
};

use super::filter::FilterArguments;
use crate::{
    bulk_results::{change_each, describe_selection},
    operator::{order, parse_reason},
    output::print_value,
};

/// The options of `millrace jobs cancel`.
#[derive(Args)]
pub(super) struct Arguments {
    #[arg(required_unless_present = "queue", conflicts_with = "queue")]
    ids: Vec<String>,
    /// Cancel jobs of this queue; without --state those that wait, not those that run
    #[arg(long)]
    queue: Option<String>,
    /// Cancel only jobs in this state: waiting or running
    #[arg(long, requires = "queue", default_value = "waiting", value_parser = parse_live_state)]
    state: State,
    #[command(flatten)]
    filter: FilterArguments,
    /// With --queue: cancel at most this many jobs, the oldest first
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Print the number of selected jobs and five of them, and cancel none
    #[arg(long)]
    dry_run: bool,
    /// The reason, shown to other operators
    #[arg(long, required_unless_present = "dry_run", value_parser = parse_reason)]
    reason: Option<String>,
}

fn parse_live_state(text: &str) -> Result<State, &'static str> {
    let state = State::parse(text).ok().filter(|state| matches!(state, State::Waiting | State::Running));
    state.ok_or("must be waiting or running")
}

/// Cancels jobs one by one, and prints each result.
///
/// # Errors
/// When the database cannot be used, or some jobs could not be cancelled.
pub(super) async fn cancel(operator: &Operator, arguments: Arguments, json: bool) -> Result<()> {
    let Arguments { ids, queue, state, filter, limit, dry_run, reason } = arguments;
    let order = if dry_run { None } else { Some(order(reason.as_deref().unwrap_or_default())?) };
    let filter = filter.filter(queue, Some(state), None);
    if filter.queue.is_none() {
        ensure!(filter.parameters().len() == 1, "a condition needs --queue, and no ids");
        return cancel_each(operator, &ids, order.as_ref(), json).await;
    }
    let selected = operator.select_live(&filter, None).await?;
    let Some(order) = order else {
        return print_value(json, &selected, || describe(&selected, limit));
    };
    let ids: Vec<String> = selected.ids.into_iter().take(limit as usize).collect();
    let result = cancel_each(operator, &ids, Some(&order), json).await;
    let count = u64::try_from(ids.len()).unwrap_or(u64::MAX);
    operator.record_cancellation(&Filter { before: Some(selected.before), ..filter }, count, &order).await?;
    result
}

/// Cancels these jobs by this order. Without an order it prints which of them it would cancel.
async fn cancel_each(operator: &Operator, ids: &[String], order: Option<&Order>, json: bool) -> Result<()> {
    change_each(json, ids, async |id| {
        let Some(order) = order else {
            let state = operator.show(id).await?.map(|details| details.job.state);
            return Ok(match state {
                Some(State::Waiting | State::Running) => ("would be cancelled", true),
                Some(_) => ("already ended", false),
                None => ("not found", false),
            });
        };
        Ok(match operator.cancel(id, order).await? {
            Cancelled::AtOnce => ("cancelled", true),
            Cancelled::Requested => ("running: its worker, or the next worker that claims it, will cancel it", true),
            Cancelled::Ended => ("already ended", false),
            Cancelled::NotFound => ("not found", false),
        })
    })
    .await
}

/// The number of selected jobs, five of them, and how many would be cancelled.
fn describe(selected: &LiveJobs, limit: u32) -> String {
    let takes = selected.count.min(limit as usize);
    let text = describe_selection(selected.count, selected.is_capped, "jobs", &selected.samples);
    text + &format!("{takes} of them would be cancelled.\n")
}
