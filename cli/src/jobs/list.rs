//! `millrace jobs list`: lists jobs in chosen columns.

use anyhow::Result;
use clap::{Args, ValueEnum};
use queue::{
    Operator,
    status::{JobPage, JobStatus, State},
};

use super::{filter::FilterArguments, format_due};
use crate::output::{
    Screen, Style, format_ago, format_time, one_line, print_value,
    table::{self, Cell, render},
    watch::watch,
};

/// The options of `millrace jobs list`.
#[derive(Args)]
pub(super) struct Arguments {
    /// List only jobs of this queue
    #[arg(long)]
    queue: Option<String>,
    /// List only jobs in this state: waiting, running, done, dead or cancelled
    #[arg(long, value_parser = State::parse)]
    state: Option<State>,
    #[command(flatten)]
    filter: FilterArguments,
    /// List only jobs before this id; give the last id of the previous page
    #[arg(long, value_name = "ID")]
    before: Option<String>,
    /// List at most this many jobs
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Show these columns, in this order [default: those of ID to ERROR that fit the terminal]
    #[arg(long, value_delimiter = ',', value_name = "COLUMN,…")]
    columns: Vec<Column>,
    /// Refresh every 2 s, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

/// A column of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Column {
    Id,
    Queue,
    State,
    Runs,
    Failures,
    Crashes,
    Priority,
    Due,
    Started,
    Ended,
    Worker,
    Key,
    Group,
    Correlation,
    Error,
}

impl Column {
    const DEFAULT: [Self; 7] = [Self::Id, Self::Queue, Self::State, Self::Runs, Self::Failures, Self::Due, Self::Error];

    fn head(self) -> &'static str {
        match self {
            Self::Id => "ID",
            Self::Queue => "QUEUE",
            Self::State => "STATE",
            Self::Runs => "RUNS",
            Self::Failures => "FAILURES",
            Self::Crashes => "CRASHES",
            Self::Priority => "PRIORITY",
            Self::Due => "DUE",
            Self::Started => "STARTED",
            Self::Ended => "ENDED",
            Self::Worker => "WORKER",
            Self::Key => "KEY",
            Self::Group => "GROUP",
            Self::Correlation => "CORRELATION ID",
            Self::Error => "LAST ERROR",
        }
    }

    /// The column of a table. A column that an operator has named is never left out.
    fn layout(self, is_named: bool) -> table::Column {
        let head = self.head();
        match self {
            Self::Error => table::Column::text(head),
            _ if is_named => table::Column::fixed(head),
            Self::Due => table::Column::optional(head, 1),
            Self::Runs => table::Column::optional(head, 2),
            Self::Failures => table::Column::optional(head, 3),
            _ => table::Column::fixed(head),
        }
    }

    fn cell(self, job: &JobStatus) -> Cell {
        let ago = |at: Option<_>| at.map_or_else(|| "-".into(), format_ago);
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        match self {
            Self::Id => job.id.as_str().into(),
            Self::Queue => job.queue.as_str().into(),
            Self::State => Cell::new(job.state.as_str(), style(job.state)),
            Self::Runs => job.runs.to_string().into(),
            Self::Failures => job.failures.to_string().into(),
            Self::Crashes => job.crashes.to_string().into(),
            Self::Priority => job.priority.to_string().into(),
            Self::Due => format_due(job).into(),
            Self::Started => ago(job.started_at).into(),
            Self::Ended => ago(job.ended_at).into(),
            Self::Worker => text(&job.worker).into(),
            Self::Key => text(&job.key).into(),
            Self::Group => text(&job.error_group).into(),
            Self::Correlation => text(&job.correlation_id).into(),
            Self::Error => text(&job.last_error).into(),
        }
    }
}

fn style(state: State) -> Style {
    match state {
        State::Waiting => Style::Plain,
        State::Running | State::Done => Style::Good,
        State::Dead | State::Unknown => Style::Bad,
        State::Cancelled => Style::Faint,
    }
}

/// Lists jobs, once or again and again.
///
/// # Errors
/// When the database cannot be used, or the output cannot be written.
pub(super) async fn list(operator: &Operator, arguments: Arguments, json: bool) -> Result<()> {
    let Arguments { queue, state, filter, before, limit, columns, watch: watched } = arguments;
    let filter = filter.filter(queue, state, before);
    if watched {
        return watch(async |screen| {
            let page = operator.list(&filter, limit).await?;
            Ok(if json { serde_json::to_string(&page.jobs)? + "\n" } else { text(&page, &columns, screen) })
        })
        .await;
    }
    let page = operator.list(&filter, limit).await?;
    print_value(json, &page.jobs, || text(&page, &columns, Screen::of_stdout()))?;
    let next = page.next.as_deref().map(|next| one_line(next, 60));
    match (next, &page.searched_to) {
        (Some(next), Some(_)) => {
            let back_to = page.searched_back_to.map(|at| format!(", back to {}", format_time(at))).unwrap_or_default();
            eprintln!(
                "note: finished jobs, and waiting jobs beyond the first 10000 of a queue, were searched among the newest \
                 {} jobs{back_to}; to search further, add --before {next}",
                page.searched
            );
        }
        (Some(next), None) => eprintln!("note: for older jobs add --before {next}"),
        (None, _) => {}
    }
    Ok(())
}

fn text(page: &JobPage, named: &[Column], screen: Screen) -> String {
    let shown = if named.is_empty() { &Column::DEFAULT[..] } else { named };
    let columns: Vec<table::Column> = shown.iter().map(|column| column.layout(!named.is_empty())).collect();
    let rows = page.jobs.iter().map(|job| shown.iter().map(|column| column.cell(job)).collect());
    render(&columns, rows, screen)
}
