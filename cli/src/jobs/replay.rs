//! `millrace jobs replay`: replays jobs by their ids, or all dead ones that a filter selects.

use anyhow::Result;
use clap::Args;
use queue::{
    Operator,
    operator::{
        audit::Order,
        replays::{REPLAYS_WITHOUT_ASKING, Selected, Selection},
    },
    status::{Replayed, State},
};
use runtime::error::Error;

use crate::{
    bulk_results::{change_each, describe_selection},
    operator::{order, parse_reason},
    output::print_value,
};

/// The options of `millrace jobs replay`.
#[derive(Args)]
pub(super) struct Arguments {
    #[arg(required_unless_present = "queue", conflicts_with = "queue")]
    ids: Vec<String>,
    /// Replay all dead jobs of this queue
    #[arg(long)]
    queue: Option<String>,
    /// Replay only jobs whose last error contains this text
    #[arg(long, requires = "queue")]
    error: Option<String>,
    /// Also replay jobs that were already replayed twice or more
    #[arg(long)]
    include_replayed: bool,
    /// Print the number of selected jobs and five of them, and replay none
    #[arg(long)]
    dry_run: bool,
    /// The reason, shown to other operators
    #[arg(long, required_unless_present = "dry_run", value_parser = parse_reason)]
    reason: Option<String>,
}

/// Replays jobs one by one, and prints each result.
///
/// # Errors
/// When the database cannot be used, or some jobs could not be replayed.
pub(super) async fn replay(operator: &Operator, arguments: Arguments, json: bool) -> Result<()> {
    let Arguments { ids, queue, error, include_replayed, dry_run, reason } = arguments;
    let order = if dry_run { None } else { Some(order(reason.as_deref().unwrap_or_default())?) };
    let ids = match queue {
        None => ids,
        Some(queue) if dry_run => {
            let selected = operator.select_dead(&Selection { queue, error, ..Selection::default() }).await?;
            return print_value(json, &selected, || describe(&selected, include_replayed));
        }
        Some(queue) => {
            let dead = operator.dead(&queue, error.as_deref()).await?;
            dead.into_iter().map(|job| job.id).collect()
        }
    };
    replay_each(operator, &ids, order.as_ref(), include_replayed, json).await
}

/// Replays these jobs by this order. Without an order it prints which of them it would replay.
async fn replay_each(
    operator: &Operator,
    ids: &[String],
    order: Option<&Order>,
    include_replayed: bool,
    json: bool,
) -> Result<()> {
    change_each(json, ids, async |id| {
        let replayed = match (order, include_replayed) {
            (None, _) => would_replay(operator, id, include_replayed).await,
            (Some(order), true) => operator.replay_again(id, order).await,
            (Some(order), false) => operator.replay(id, order).await,
        };
        Ok(match replayed? {
            Replayed::Replayed if order.is_none() => ("would be replayed", true),
            Replayed::Replayed => ("replayed", true),
            Replayed::NotDead => ("not dead", false),
            Replayed::KeyTaken => ("not replayed: another job with the same key is waiting or running", false),
            Replayed::ReplayedBefore => {
                ("not replayed: it was already replayed twice or more; add --include-replayed", false)
            }
            Replayed::NotFound => ("not found", false),
        })
    })
    .await
}

async fn would_replay(operator: &Operator, id: &str, include_replayed: bool) -> Result<Replayed, Error> {
    Ok(match operator.show(id).await?.map(|details| (details.job.state, details.replays)) {
        None => Replayed::NotFound,
        Some((State::Dead | State::Cancelled, replays)) if include_replayed || replays < REPLAYS_WITHOUT_ASKING => {
            Replayed::Replayed
        }
        Some((State::Dead | State::Cancelled, _)) => Replayed::ReplayedBefore,
        Some(_) => Replayed::NotDead,
    })
}

/// The number of selected jobs, five of them, and how many would be replayed.
fn describe(selected: &Selected, include_replayed: bool) -> String {
    let Selected { count, is_capped, samples, .. } = selected;
    let left_out = if include_replayed { 0 } else { selected.replayed_before };
    let at_least = if *is_capped { "at least " } else { "" };
    let mut text = describe_selection(count, *is_capped, "dead jobs", samples);
    if left_out > 0 {
        text.push_str(&format!(
            "{left_out} of them were already replayed twice or more; replaying them needs --include-replayed.\n"
        ));
    }
    text + &format!("{at_least}{} of them would be replayed.\n", count - left_out)
}
