//! `millrace callbacks`: shows the destinations of callbacks, enables one again, and sends a test message.

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use jobs::transactions::callbacks::{
    Callbacks,
    model::{DestinationStatus, Enabled, MAX_WAITING, Tested, label},
};
use time::OffsetDateTime;

use crate::{
    operator::{app, order, parse_reason},
    output::{
        Screen, Style, format_ago, format_count, one_line, print_value, shell_quote,
        table::{Cell, Column, render},
    },
};

#[derive(Args)]
#[command(after_help = "\
The list has the destinations of this command's configuration, and all others with a problem: give it the same CALLBACK_URL and
CALLBACK_SECRET as the workers. The destination without a name gets the settlements of all senders that have none of their own.

A destination is disabled when it responds 410, or has failed for three days. Its callbacks then become dead letters.

Examples:
  millrace callbacks
  millrace callbacks test acme
  millrace callbacks enable acme --reason 'the receiver is healthy again'
  millrace dead replay --queue send_callback --error 'callbacks to acme are disabled' --reason 'it is enabled'")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Send callbacks to a disabled destination again
    Enable {
        /// The sender; without it, the destination of all senders that have none of their own
        name: Option<String>,
        /// The reason, shown to other operators
        #[arg(long, value_parser = parse_reason)]
        reason: String,
    },
    /// Send a test message and print the response; exit with 1 if it is not accepted
    Test {
        /// The sender; without it, the destination of all senders that have none of their own
        name: Option<String>,
    },
}

/// Runs `millrace callbacks`. Returns `false` if a test message was not accepted.
///
/// # Errors
/// When the database cannot be used, there is no such destination, or it is not disabled.
pub(crate) async fn program(Arguments { command, json }: Arguments) -> Result<bool> {
    let callbacks = app().await?.transactions.callbacks().clone();
    match command {
        None => {}
        Some(Command::Enable { name, reason }) => enable(&callbacks, &name.unwrap_or_default(), &reason).await?,
        Some(Command::Test { name }) => return test(&callbacks, &name.unwrap_or_default(), json).await,
    }
    let destinations = callbacks.list().await?;
    print_value(json, &destinations, || list(&destinations, Screen::of_stdout()))?;
    Ok(true)
}

async fn enable(callbacks: &Callbacks, name: &str, reason: &str) -> Result<()> {
    match callbacks.enable(name, &order(reason)?).await? {
        Enabled::Enabled => Ok(()),
        Enabled::NotDisabled => bail!("{} is not disabled", label(name)),
        Enabled::Unknown => bail!("there is no destination {name:?}; `millrace callbacks` lists them"),
    }
}

async fn test(callbacks: &Callbacks, name: &str, json: bool) -> Result<bool> {
    let message = match callbacks.test(name, OffsetDateTime::now_utc(), &order("a test message")?).await? {
        Tested::Sent(message) => message,
        Tested::Unknown => bail!("there is no destination {name:?}; `millrace callbacks` lists them"),
        Tested::NotConfigured => bail!("CALLBACK_URL is not set: there is no destination"),
    };
    print_value(json, &message, || {
        let to = label(&message.destination);
        let result = match &message.error {
            None => format!("{to} has accepted the message: status {}", message.status.unwrap_or_default()),
            Some(error) => format!("{to} has not accepted the message: {}", one_line(error, 600)),
        };
        format!("{result}\nwebhook-id {}\n", message.webhook_id)
    })?;
    Ok(message.delivered)
}

fn list(destinations: &[DestinationStatus], screen: Screen) -> String {
    const COLUMNS: [Column; 6] = [
        Column::fixed("DESTINATION"),
        Column::fixed("STATE"),
        Column::optional("WAITING", 2),
        Column::optional("FAILING", 3),
        Column::optional("URL", 1),
        Column::text("DISABLED BECAUSE"),
    ];
    if destinations.is_empty() {
        return "There are no destinations: CALLBACK_URL is not set.\n".into();
    }
    let rows = destinations.iter().map(|one| {
        let (state, style) = match (one.disabled_at, one.failing_since) {
            (Some(at), _) => (format!("disabled {}", format_ago(at)), Style::Bad),
            (None, Some(_)) => ("failing".into(), Style::Warning),
            (None, None) => ("ok".into(), Style::Good),
        };
        vec![
            label(&one.name).into(),
            Cell::new(&state, style),
            format_count(one.waiting, MAX_WAITING).into(),
            one.failing_since.map_or_else(|| "-".into(), format_ago).into(),
            one.url.as_deref().unwrap_or("-").into(),
            one.disabled_because.as_deref().unwrap_or_default().into(),
        ]
    });
    let mut text = render(&COLUMNS, rows, screen);
    for one in destinations.iter().filter(|one| one.disabled_at.is_some()) {
        let name = if one.name.is_empty() { String::new() } else { format!(" {}", shell_quote(&one.name)) };
        text.push_str(&format!("millrace callbacks enable{name} --reason '…'\n"));
    }
    text
}
