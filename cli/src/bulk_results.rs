//! Operations on many jobs, whose results are printed one by one: after Ctrl-C an operator sees how far they got. Also
//! what their dry runs print.

use std::fmt::Display;

use anyhow::{Result, bail};
use queue::status::JobStatus;
use runtime::{
    error::Error,
    shutdown::{GRACE, Shutdown},
};
use serde_json::json;

use crate::output::{one_line, print};

/// The result of one job, and whether the operation succeeded.
pub(crate) type JobResult = (&'static str, bool);

/// Changes jobs one by one, and prints the results as a table or as one JSON array. Ctrl-C ends it after the current job.
///
/// # Errors
/// When it was interrupted, some jobs were not changed, or the output cannot be written.
pub(crate) async fn change_each(
    json: bool,
    ids: &[String],
    change: impl AsyncFn(&str) -> Result<JobResult, Error>,
) -> Result<()> {
    let shutdown = Shutdown::on_signals(GRACE)?;
    print(match (json, ids.len()) {
        (true, _) => "[",
        (false, 0) => "No job matches.\n",
        (false, _) => "ID                          RESULT\n",
    })?;
    let (mut printed, mut failed) = (0, 0);
    for id in ids {
        if shutdown.drain.is_cancelled() {
            break;
        }
        let (result, succeeded) = change(id).await.unwrap_or_else(|error| {
            eprintln!("{id}: {error}");
            ("failed", false)
        });
        if json {
            let separator = if printed == 0 { "\n  " } else { ",\n  " };
            print(&format!("{separator}{}", json!({ "id": id, "result": result })))?;
        } else {
            print(&format!("{:<26}  {result}\n", one_line(id, 60)))?;
        }
        printed += 1;
        failed += usize::from(!succeeded);
    }
    if json {
        print(if printed == 0 { "]\n" } else { "\n]\n" })?;
    }
    let total = ids.len();
    if printed < total {
        bail!("interrupted after {printed} of {total} jobs; {failed} of these were not changed");
    }
    if failed > 0 {
        bail!("{failed} of {total} jobs were not changed: see their results");
    }
    Ok(())
}

/// The number of selected jobs, and samples of them. `noun` is what they are, such as `dead letters`.
pub(crate) fn describe_selection(count: impl Display, is_capped: bool, noun: &str, samples: &[JobStatus]) -> String {
    let at_least = if is_capped { "at least " } else { "" };
    let oldest = if samples.is_empty() { "" } else { " The oldest:" };
    let mut text = format!("Selected: {at_least}{count} {noun}.{oldest}\n");
    for job in samples {
        let error = one_line(job.last_error.as_deref().unwrap_or("no error is recorded"), 200);
        let runs = if job.runs == 1 { "1 run".into() } else { format!("{} runs", job.runs) };
        text.push_str(&format!("  {}  {}  {runs}  {error}\n", one_line(&job.id, 60), job.state.as_str()));
    }
    text
}
