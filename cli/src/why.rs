//! `millrace why`: why a job or the job of a transaction is not running.

use anyhow::{Context as _, Result, bail};
use clap::Args;
use jobs::app::App;
use queue::{
    operator::why::{Check, Why},
    status::State,
};

use crate::{
    operator::app,
    output::{Screen, Style, format_time, one_line, print_value},
};

#[derive(Args)]
#[command(after_help = "\
The checks are in the order in which they decide. A failed check has the command that corrects it, if there is one.

Exits with 0 if the job runs or is done, else with 1.

Examples:
  millrace why 01KAJ3V1J4SJ9T7YQ0M2C6Z8XB
  millrace why txn_2026_000123
  millrace why 01KAJ3V1J4SJ9T7YQ0M2C6Z8XB --json")]
pub(crate) struct Arguments {
    /// The id of a job or of a transaction
    #[arg(value_name = "JOB|TRANSACTION")]
    id: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs `millrace why`. Returns whether the job runs or is done.
///
/// # Errors
/// When the database cannot be used, or there is no such job or transaction.
pub(crate) async fn program(Arguments { id, json }: Arguments) -> Result<bool> {
    let app = app().await?;
    let why = match app.operator.why(&id).await? {
        Some(why) => why,
        None => match of_transaction(&app, &id).await? {
            Transaction::Job(why) => *why,
            Transaction::JobDeleted(status) => {
                let known = serde_json::json!({ "transaction_id": id, "status": status, "job": null });
                let text = || format!("The transaction is {status}, and its job has been deleted since.\n");
                print_value(json, &known, text)?;
                return Ok(true);
            }
        },
    };
    let is_fine = match why.job.state {
        State::Done => true,
        State::Running => why.checks.iter().all(|check| check.ok),
        _ => false,
    };
    print_value(json, &why, || text(&why, is_fine, Screen::of_stdout()))?;
    Ok(is_fine)
}

/// What is known of a transaction.
enum Transaction {
    Job(Box<Why>),
    /// Finished jobs are deleted after a day. This is the state of the transaction.
    JobDeleted(&'static str),
}

/// Looks a transaction up, and its job.
async fn of_transaction(app: &App, id: &str) -> Result<Transaction> {
    let timeline = match app.timeline(id).await? {
        Some(timeline) => timeline,
        // It may also be the internal id of a transaction.
        None => match app.find(id).await?.into_iter().find(|found| found.kind == "transaction") {
            Some(found) => app.timeline(&found.id).await?.with_context(|| not_found(id))?,
            None => bail!(not_found(id)),
        },
    };
    Ok(match app.operator.why(&timeline.job).await? {
        Some(why) => Transaction::Job(Box::new(why)),
        None => Transaction::JobDeleted(timeline.status),
    })
}

fn not_found(id: &str) -> String {
    format!("there is no job and no transaction {id:?}; `millrace find` looks for other ids")
}

fn text(why: &Why, is_fine: bool, screen: Screen) -> String {
    let verdict = if is_fine { Style::Good } else { Style::Bad };
    let mut text = format!(
        "{} {}: {}\n",
        one_line(&why.job.id, 60),
        why.job.state.as_str(),
        verdict.paint(&one_line(&why.verdict, 500), screen)
    );
    // That a job is done is a check that stops the others, but no fault.
    let is_done = why.job.state == State::Done;
    let seen: Vec<Check> = why.checks.iter().map(|check| Check { ok: check.ok || is_done, ..check.clone() }).collect();
    text.push_str(&checks(&seen, screen));
    text.push_str("\nWhat happened, oldest first\n");
    for event in &why.events {
        text.push_str(&format!("  {}  {}\n", format_time(event.at), one_line(&event.text, 500)));
    }
    text
}

/// The checks, each failed one with the command that corrects it.
pub(crate) fn checks(all: &[Check], screen: Screen) -> String {
    let mut text = String::new();
    for check in all {
        let mark = if check.ok { Style::Good.paint("✔", screen) } else { Style::Bad.paint("✘", screen) };
        text.push_str(&format!("  {mark} {}\n", one_line(&check.text, 500)));
        if let Some(fix) = &check.fix {
            text.push_str(&format!("      {}\n", one_line(fix, 300)));
        }
    }
    text
}
