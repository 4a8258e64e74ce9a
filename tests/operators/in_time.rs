//! Views and commands, each repeated if this machine was too slow for its time limit of one or two seconds.

use std::time::Duration;

use reqwest::RequestBuilder;

use crate::harness::{
    eventually,
    http::{HttpResponse, send_until},
    process::Process,
};

/// The limit of a command. One that waits for the end of a replay takes longest.
const LIMIT: Duration = Duration::from_secs(30);
/// The limit of all tries.
const TRIES: Duration = Duration::from_secs(120);
/// What a page shows in the place of a query or a check that took over a second.
const MISSING: [&str; 2] = ["Not known now: the query takes over 1 s.", "<p class=\"unknown\">not known now"];
/// What a command prints that has done nothing, because the database did not respond within two seconds; and what
/// `millrace status` prints of a list that it got more than half a second later than the queues.
const LATE: [&str; 2] = ["the database did not reply in time", "the destinations of callbacks are not known now"];

/// Sends a request for a view until the view is complete.
pub(crate) async fn view(request: RequestBuilder) -> HttpResponse {
    let is_known = |text: &str| MISSING.iter().all(|missing| !text.contains(missing));
    send_until(request, |found| found.status != 503 && is_known(&found.text)).await
}

/// Runs a command as ada until the database responds in time. Returns its exit status and its output.
pub(crate) async fn run(database: &str, arguments: &[&str]) -> (Option<i32>, String) {
    run_until(database, arguments, |_, printed| LATE.iter().all(|late| !printed.contains(late))).await
}

/// Runs a command as ada until its exit status and its output are wanted, and returns them.
pub(super) async fn run_until(
    database: &str,
    arguments: &[&str],
    is_wanted: impl Fn(Option<i32>, &str) -> bool,
) -> (Option<i32>, String) {
    let mut result = (None, String::new());
    let found = async || {
        let variables = [("DATABASE_URL", database), ("MILLRACE_ACTOR", "ada")];
        let mut process = Process::start(arguments, &variables);
        let status = process.wait_for_exit(LIMIT).await.code();
        result = (status, process.log());
        is_wanted(status, &result.1)
    };
    eventually(&format!("the result of {arguments:?} is wanted"), TRIES, found).await;
    result
}
