//! `millrace find`: finds what an id belongs to.

use anyhow::Result;
use clap::Args;

use crate::{
    operator::app,
    output::{
        Screen, print, print_json, shell_quote,
        table::{Column, render},
    },
};

#[derive(Args)]
#[command(after_help = "\
Exits with 0 if something was found, else with 1.

Examples:
  millrace find txn_2026_000123                            a transaction, by the id of its sender
  millrace find 0198b4fa-3a05-7c3e-9f54-9d1f4e0c6a11       a transaction and its job, by the internal id, or a replay
  millrace find 01KAJ3V1J4SJ9T7YQ0M2C6Z8XB --json          a job
  millrace find 4bf92f3577b34da6a3ce929d0e0e4736           the transactions of a trace, or of a correlation id")]
pub(crate) struct Arguments {
    /// The id of a job, transaction, item or replay; the correlation id or trace id of a transaction
    #[arg(value_name = "ID")]
    text: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs `millrace find`. Returns whether something was found.
///
/// # Errors
/// When the database cannot be used, or the output cannot be written.
pub(crate) async fn program(Arguments { text, json }: Arguments) -> Result<bool> {
    let found = app().await?.find(&text).await?;
    if json {
        print_json(&found)?;
    } else if found.is_empty() {
        print("No job, transaction, item or replay has this id, and no transaction came with it.\n")?;
    } else {
        const COLUMNS: [Column; 4] =
            [Column::fixed("KIND"), Column::fixed("ID"), Column::text("WHAT"), Column::optional("MORE", 1)];
        let rows = found.iter().map(|found| {
            vec![
                found.kind.into(),
                found.id.as_str().into(),
                found.text.as_str().into(),
                more(found.kind, &found.id).into(),
            ]
        });
        print(&render(&COLUMNS, rows, Screen::of_stdout()))?;
    }
    Ok(!found.is_empty())
}

/// The command that shows more.
fn more(kind: &str, id: &str) -> String {
    let id = shell_quote(id);
    match kind {
        "job" => format!("millrace why {id}"),
        "transaction" => format!("millrace transaction {id}"),
        "replay" => format!("millrace replays show {id}"),
        _ => String::new(),
    }
}
