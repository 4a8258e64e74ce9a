//! `millrace jobs cancel`: cancels jobs by their ids, or all that a filter selects.

use anyhow::Result;
use clap::Args;
use queue::{
    Operator,
    status::{Cancelled, Filter, State},
};

use super::parse_state;
use crate::{
    bulk_results::change_each,
    operator::{order, parse_reason},
};

/// The jobs that are read at once.
const PAGE: u32 = 1000;

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
    /// Cancel only jobs whose last error contains this text
    #[arg(long, requires = "queue")]
    error: Option<String>,
    /// With --queue: cancel at most this many jobs
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// Print the selected jobs, and cancel none of them
    #[arg(long)]
    dry_run: bool,
    /// The reason, shown to other operators
    #[arg(long, value_parser = parse_reason)]
    reason: Option<String>,
}

fn parse_live_state(text: &str) -> Result<State, &'static str> {
    let state = parse_state(text).ok().filter(|state| matches!(state, State::Waiting | State::Running));
    state.ok_or("must be waiting or running")
}

/// Cancels jobs one by one, and prints each result.
///
/// # Errors
/// When the database cannot be used, or some jobs could not be cancelled.
pub(super) async fn cancel(operator: &Operator, arguments: Arguments, json: bool) -> Result<()> {
    let Arguments { ids, queue, state, error, limit, dry_run, reason } = arguments;
    let order = order(reason.as_deref())?;
    let ids = match queue {
        None => ids,
        Some(queue) => {
            select(operator, Filter { queue: Some(queue), state: Some(state), error, before: None }, limit).await?
        }
    };
    change_each(json, &ids, async |id| {
        if dry_run {
            let state = operator.show(id).await?.map(|details| details.job.state);
            return Ok(match state {
                Some(State::Waiting | State::Running) => ("would be cancelled", true),
                Some(_) => ("already ended", false),
                None => ("not found", false),
            });
        }
        Ok(match operator.cancel(id, &order).await? {
            Cancelled::AtOnce => ("cancelled", true),
            Cancelled::Requested => ("running: its worker, or the next worker that claims it, will cancel it", true),
            Cancelled::Ended => ("already ended", false),
            Cancelled::NotFound => ("not found", false),
        })
    })
    .await
}

/// The ids of the jobs that a filter selects, newest first.
async fn select(operator: &Operator, mut filter: Filter, limit: u32) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    while ids.len() < limit as usize {
        let left = limit - u32::try_from(ids.len()).unwrap_or(limit);
        let page = operator.list(&filter, left.min(PAGE)).await?.jobs;
        let Some(last) = page.last() else { break };
        filter.before = Some(last.id.clone());
        ids.extend(page.into_iter().map(|job| job.id));
    }
    Ok(ids)
}
