//! `millrace reindex`: every item in the search as it now is.

use std::time::{Duration, Instant};

use clap::Args;
use jobs::{boot::process, items::search::reindex::Progress};

use crate::operator::app;

/// Between two lines of progress.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Args)]
#[command(after_help = "\
Writes every item to PostgreSQL's documents, and to Elasticsearch when ELASTICSEARCH_URL is set; then removes the documents
whose item is gone. API and workers go on meanwhile: an older version of an item never replaces a newer one. Run it after
Elasticsearch has been set up or has lost its data; after an update, workers do it by themselves. Running it again is harmless.

Examples:
  millrace reindex
  ELASTICSEARCH_URL=http://localhost:9200 millrace reindex --quiet")]
pub struct Arguments {
    /// Print no progress, only errors
    #[arg(long, short)]
    quiet: bool,
}

/// Does it.
///
/// # Errors
/// Why it could not, or what stopped it halfway.
pub async fn program(Arguments { quiet }: Arguments) -> Result<(), String> {
    let app = app().await?;
    if let Some(health) = app.search.health().await.map_err(process::text)?.filter(|_| !quiet) {
        eprintln!("Elasticsearch is {health}");
    }
    let begun = Instant::now();
    let mut told = begun;
    let progress = |so_far: Progress| {
        if !quiet && told.elapsed() >= EVERY {
            told = Instant::now();
            eprintln!("{} of about {} items", so_far.written, so_far.of);
        }
    };
    let done = app.search.reindex(progress).await.map_err(process::text)?;
    if !quiet {
        let seconds = begun.elapsed().as_secs_f64();
        eprintln!(
            "{} items written, {} documents without an item removed, in {seconds:.1} s",
            done.written, done.removed
        );
    }
    Ok(())
}
