//! What became of many jobs, printed one by one, so that an operator who interrupts a long run sees how far it came.

use jobs::boot::{
    process,
    shutdown::{GRACE, Shutdown},
};
use serde::Serialize;

use crate::operator::{one_line, print};

/// Prints results as they come, as a table or as one JSON array.
pub struct Report {
    json: bool,
    wanted: usize,
    printed: usize,
    bad: usize,
    shutdown: Shutdown,
}

/// What became of one job.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    result: &'a str,
}

impl Report {
    /// Begins the output for so many jobs. From here on Ctrl-C ends the run after the job at hand.
    ///
    /// # Errors
    /// When signals cannot be handled, or the output cannot be written.
    pub fn begin(json: bool, wanted: usize) -> Result<Self, String> {
        let shutdown = Shutdown::on_signals(GRACE).map_err(process::text)?;
        print(match (json, wanted) {
            (true, _) => "[",
            (false, 0) => "No dead job fits.\n",
            (false, _) => "ID                          RESULT\n",
        })?;
        Ok(Self { json, wanted, printed: 0, bad: 0, shutdown })
    }

    /// The job whose turn it is; `None` at the end, or once the run was interrupted.
    pub fn next<'a>(&self, ids: &'a [String]) -> Option<&'a str> {
        if self.shutdown.drain.is_cancelled() { None } else { ids.get(self.printed).map(String::as_str) }
    }

    /// Prints the result of that job.
    ///
    /// # Errors
    /// When it has no JSON form, or the output cannot be written.
    pub fn add(&mut self, id: &str, result: &str, good: bool) -> Result<(), String> {
        if self.json {
            let separator = if self.printed == 0 { "\n  " } else { ",\n  " };
            let line = serde_json::to_string(&Line { id, result }).map_err(process::text)?;
            print(&format!("{separator}{line}"))?;
        } else {
            print(&format!("{:<26}  {result}\n", one_line(id, 60)))?;
        }
        self.printed += 1;
        self.bad += usize::from(!good);
        Ok(())
    }

    /// Ends the output.
    ///
    /// # Errors
    /// When the run was interrupted, or some jobs are as they were.
    pub fn end(self) -> Result<(), String> {
        if self.json {
            print(if self.printed == 0 { "]\n" } else { "\n]\n" })?;
        }
        if self.printed < self.wanted {
            let Self { printed, wanted, bad, .. } = self;
            return Err(format!("interrupted after {printed} of {wanted} jobs, {bad} of which are as they were"));
        }
        match self.bad {
            0 => Ok(()),
            bad => Err(format!("{bad} of {} jobs are as they were: see their results", self.wanted)),
        }
    }
}
