//! Which dead letters a command means.

use anyhow::{Result, bail};
use clap::Args;
use queue::{
    Operator,
    operator::replays::{Selected, Selection},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{bulk_results::describe_selection, output::shell_quote};

/// The options that select dead letters.
#[derive(Args)]
pub(super) struct SelectionArguments {
    /// The queue of the dead letters
    #[arg(long)]
    queue: String,
    /// Select only this group of errors; `millrace dead` lists the groups
    #[arg(long)]
    group: Option<String>,
    /// Select only dead letters whose last error contains this text
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Select only dead letters that died at this time or before, such as the time that --dry-run prints
    #[arg(long, value_name = "TIME", value_parser = Selection::parse_time)]
    died_before: Option<OffsetDateTime>,
}

impl SelectionArguments {
    pub(super) fn selection(&self) -> Selection {
        let (queue, group, error) = (self.queue.clone(), self.group.clone(), self.error.clone());
        Selection { queue, group, error, died_before: self.died_before }
    }
}

/// Counts what is selected.
///
/// # Errors
/// When the database cannot be used, or nothing is selected.
pub(super) async fn select(operator: &Operator, selection: &Selection) -> Result<Selected> {
    let selected = operator.select_dead(selection).await?;
    if selected.count == 0 {
        let group = selection.group.as_ref().map(|group| format!(" in the group {}", shell_quote(group)));
        let error = selection.error.as_ref().map(|error| format!(" with an error that contains {error:?}"));
        bail!(
            "there is no dead letter in the queue {:?}{}{}; `millrace dead` lists them",
            selection.queue,
            group.unwrap_or_default(),
            error.unwrap_or_default()
        );
    }
    Ok(selected)
}

/// The number of selected dead letters, and five samples.
pub(super) fn describe(selected: &Selected) -> String {
    let text = describe_selection(selected.count, selected.is_capped, "dead letters", &selected.samples);
    let counted_at = selected.counted_at.format(&Rfc3339).unwrap_or_default();
    text + &format!("To take no jobs that die later, add --died-before {counted_at}\n")
}
