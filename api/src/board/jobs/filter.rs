//! The filter of the list of jobs, in the URL and as options of a command.

use queue::{filter::Filter, status::State};

use crate::{
    board::{
        form::{Form, invalid},
        format,
    },
    problem::Problem,
};

/// Reads the filter of a URL or of a form.
///
/// # Errors
/// 422 for an unknown state, a wrong age or a wrong number of runs.
pub(super) fn read(form: &Form) -> Result<Filter, Problem> {
    let attempts = form.get("attempts").map(|_| form.number("attempts", 0, 0, i32::MAX)).transpose()?;
    let older_than = form.get("older_than").map(str::parse).transpose();
    Ok(Filter {
        queue: form.text("queue"),
        state: form.get("state").map(State::parse).transpose().map_err(|must| invalid("state", must))?,
        error: form.text("error"),
        group: form.text("group"),
        older_than: older_than.map_err(|must: String| invalid("older_than", &must))?,
        worker: form.text("worker"),
        attempts,
        key: form.text("key"),
        before: form.text("before"),
    })
}

/// The link to a page with these jobs.
pub(super) fn link(path: &str, filter: &Filter) -> String {
    let parameters = filter.parameters();
    let mut parameters: Vec<_> = parameters.iter().map(|(name, value)| (*name, Some(&**value))).collect();
    parameters.push(("before", filter.before.as_deref()));
    format::link(path, &parameters)
}

/// A command for these jobs.
pub(super) fn command(command: &str, filter: &Filter, more: &[(&str, Option<&str>)]) -> String {
    let options: Vec<(String, String)> =
        filter.parameters().into_iter().map(|(name, value)| (format!("--{}", name.replace('_', "-")), value)).collect();
    let options: Vec<_> = options.iter().map(|(name, value)| (&**name, Some(&**value))).collect();
    format::command(command, &[&options[..], more].concat())
}

/// The conditions for people: name and value.
pub(super) fn conditions(filter: &Filter) -> Vec<(String, String)> {
    filter.parameters().into_iter().map(|(name, value)| (name.replace('_', " "), value)).collect()
}
