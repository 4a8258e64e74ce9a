//! What happened in a queue over an hour, a day or two weeks.

use askama::Template;
use poem::Response;
use queue::operator::trends::{TrendPoint, TrendWindow, Trends};

use super::{
    form::invalid,
    format::{self, Html},
    page::{self, Chrome},
    part::{Part, load},
    state::State,
    trend_chart::{Line, draw},
    visit::Visit,
};
use crate::problem::Problem;

/// The page.
#[derive(Template)]
#[template(path = "trends.html")]
struct TrendsPage {
    chrome: Chrome,
    name: String,
    window: TrendWindow,
    trends: Part<Option<Trends>>,
}

/// Shows the page of a queue.
///
/// # Errors
/// 422 for an unknown window.
pub(super) async fn show(state: &State, visit: &Visit, name: &str) -> Result<Response, Problem> {
    let window = visit.query.text("window").map(|text| TrendWindow::parse(&text)).transpose();
    let window = window.map_err(|must| invalid("window", &must))?.unwrap_or(TrendWindow::Hour);
    let trends = load("trends", state.operator().trends(name, window)).await;
    let command = format::command("trends", &[("", Some(name)), ("--window", Some(window.as_str()))]);
    let chrome = visit.chrome(&format!("Trends of {name}"), "/board", command);
    page::render(&TrendsPage { chrome, name: name.to_owned(), window, trends })
}

// Counts of jobs are far below 2^52.
#[allow(clippy::cast_precision_loss)]
fn line(class: &'static str, name: &'static str, trends: &Trends, count: fn(&TrendPoint) -> i64) -> Line {
    Line { class, name, values: trends.points.iter().map(|point| Some(count(point) as f64)).collect() }
}

/// Jobs that came in, runs that started, new dead letters. The last step is not over, so its counts would look like a fall.
fn jobs_chart(trends: &Trends) -> Html {
    let mut lines = [
        line("in", "came in", trends, |point| point.came),
        line("out", "started", trends, |point| point.started),
        line("dead", "died", trends, |point| point.dead),
    ];
    for line in &mut lines {
        if let Some(present) = line.values.last_mut() {
            *present = None;
        }
    }
    draw(&lines, trends, |most| format!("at most {} jobs in {}", format::number(whole(most)), step(trends)))
}

/// Waiting and running jobs.
fn depth_chart(trends: &Trends) -> Html {
    let lines = [line("in", "waiting and running", trends, |point| point.depth)];
    let present = trends.points.last().map_or(0, |point| point.depth);
    let sign = trends.depth_is.sign(present);
    draw(&lines, trends, |most| format!("at most {sign}{} jobs", format::number(whole(most))))
}

/// How long jobs waited after they were due.
fn wait_chart(trends: &Trends) -> Html {
    let values = trends.points.iter().map(|point| point.wait_p99_seconds).collect();
    let lines = [Line { class: "out", name: "wait p99", values }];
    draw(&lines, trends, |most| format!("at most {}", format::seconds(most)))
}

// The highest count of a chart, which is far below 2^52.
#[allow(clippy::cast_possible_truncation)]
fn whole(number: f64) -> i64 {
    number as i64
}

/// The length of a point in words.
fn step(trends: &Trends) -> String {
    format::seconds(f64::from(trends.step_seconds))
}
