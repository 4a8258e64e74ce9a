//! The results of an operation on many jobs, printed one by one: after Ctrl-C an operator sees how far it got.

use runtime::{
    process,
    shutdown::{GRACE, Shutdown},
};
use serde::Serialize;

use crate::operator::{one_line, print};

/// Prints results as they arrive, as a table or as one JSON array.
pub struct BulkResults {
    json: bool,
    total: usize,
    printed: usize,
    failed: usize,
    shutdown: Shutdown,
}

/// The result of one job.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    result: &'a str,
}

impl BulkResults {
    /// Prints the header for `total` jobs. From here on Ctrl-C ends the run after the current job.
    ///
    /// # Errors
    /// When signals cannot be handled, or the output cannot be written.
    pub fn start(json: bool, total: usize) -> Result<Self, String> {
        let shutdown = Shutdown::on_signals(GRACE).map_err(process::error_text)?;
        print(match (json, total) {
            (true, _) => "[",
            (false, 0) => "No dead job matches.\n",
            (false, _) => "ID                          RESULT\n",
        })?;
        Ok(Self { json, total, printed: 0, failed: 0, shutdown })
    }

    /// The id of the next job; `None` at the end, or after an interrupt.
    pub fn next_id<'a>(&self, ids: &'a [String]) -> Option<&'a str> {
        if self.shutdown.drain.is_cancelled() { None } else { ids.get(self.printed).map(String::as_str) }
    }

    /// Prints the result of the job that [`Self::next_id`] returned.
    ///
    /// # Errors
    /// When the result cannot be serialised, or the output cannot be written.
    pub fn add(&mut self, id: &str, result: &str, succeeded: bool) -> Result<(), String> {
        if self.json {
            let separator = if self.printed == 0 { "\n  " } else { ",\n  " };
            let line = serde_json::to_string(&Line { id, result }).map_err(process::error_text)?;
            print(&format!("{separator}{line}"))?;
        } else {
            print(&format!("{:<26}  {result}\n", one_line(id, 60)))?;
        }
        self.printed += 1;
        self.failed += usize::from(!succeeded);
        Ok(())
    }

    /// Prints the end of the output.
    ///
    /// # Errors
    /// When the run was interrupted, or some jobs were not changed.
    pub fn finish(self) -> Result<(), String> {
        if self.json {
            print(if self.printed == 0 { "]\n" } else { "\n]\n" })?;
        }
        if self.printed < self.total {
            let Self { printed, total, failed, .. } = self;
            return Err(format!("interrupted after {printed} of {total} jobs; {failed} of these were not changed"));
        }
        match self.failed {
            0 => Ok(()),
            failed => Err(format!("{failed} of {} jobs were not changed: see their results", self.total)),
        }
    }
}
