//! `millrace reindex`: rebuilds the search index.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use jobs::items::search::reindex::Progress;

use crate::operator::app;

/// Interval between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Args)]
#[command(after_help = "\
Indexes every item in PostgreSQL and, if ELASTICSEARCH_URL is set, in Elasticsearch; then removes the documents of deleted
items. The API and the workers keep running: an older version of an item never replaces a newer one. Run it after setting up
Elasticsearch or after it has lost its data; after an upgrade the workers reindex on their own. Running it again is harmless.

Examples:
  millrace reindex
  ELASTICSEARCH_URL=http://localhost:9200 millrace reindex --quiet")]
pub(crate) struct Arguments {
    /// Print only errors, no progress
    #[arg(long, short)]
    quiet: bool,
}

/// Runs `millrace reindex`.
///
/// # Errors
/// When the database or Elasticsearch cannot be used, also halfway.
pub(crate) async fn program(Arguments { quiet }: Arguments) -> Result<()> {
    let app = app().await?;
    if let Some(health) = app.search.health().await?.filter(|_| !quiet) {
        eprintln!("Elasticsearch is {health}");
    }
    let begun = Instant::now();
    let mut last_printed = begun;
    let progress = |so_far: Progress| {
        if !quiet && last_printed.elapsed() >= PROGRESS_INTERVAL {
            last_printed = Instant::now();
            eprintln!("{} of about {} items", so_far.written, so_far.of);
        }
    };
    let done = app.search.reindex(progress).await?;
    if !quiet {
        let seconds = begun.elapsed().as_secs_f64();
        eprintln!(
            "{} items written, {} documents without an item removed, in {seconds:.1} s",
            done.written, done.removed
        );
    }
    Ok(())
}
