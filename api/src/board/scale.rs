//! How many workers are needed.

use askama::Template;
use poem::Response;
use queue::operator::{demand::Objective, scale::Scale};
use runtime::duration::parse_duration;

use super::{
    form::invalid,
    format,
    page::{self, Chrome},
    part::{Part, load},
    state::State,
    visit::Visit,
};
use crate::problem::Problem;

const PATH: &str = "/board/scale";

/// The page.
#[derive(Template)]
#[template(path = "scale.html")]
struct ScalePage {
    chrome: Chrome,
    objective: String,
    drain_in: String,
    scale: Part<Scale>,
}

/// Shows the page.
///
/// # Errors
/// 422 for a wrong duration.
pub(super) async fn show(state: &State, visit: &Visit) -> Result<Response, Problem> {
    let read = |name: &'static str, default: &str| {
        let text = visit.query.text(name).unwrap_or_else(|| default.to_owned());
        let duration = parse_duration(&text).map_err(|must| invalid(name, &must))?;
        Ok::<_, Problem>((text, duration.as_seconds_f64()))
    };
    let (objective, wait_seconds) = read("objective", "30s")?;
    let (drain_in, drain_seconds) = read("drain_in", "10m")?;
    let wanted = Objective { wait_seconds, drain_seconds: drain_seconds.max(1.0) };
    let scale = load("scale", state.operator().scale(&wanted)).await;
    let options = [("--objective", Some(objective.as_str())), ("--drain-in", Some(drain_in.as_str()))];
    let chrome = visit.chrome("Scale", PATH, format::command("scale", &options));
    page::render(&ScalePage { chrome, objective, drain_in, scale })
}

/// A number that may not be known.
fn known(count: &Option<u32>) -> String {
    count.map_or_else(|| "–".into(), |count| count.to_string())
}
