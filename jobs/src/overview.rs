//! What operators see first: what is wrong, in queues and in features, and the state of all queues.

use std::sync::Arc;

use serde::Serialize;
use time::OffsetDateTime;

use crate::{
    app::App,
    transactions::callbacks::model::{DestinationProblem, label},
};
use queue::{
    operator::overview::{self as queues, ProblemKind, QueueOverview},
    status::format_duration,
};
use runtime::error::Error;

/// At most so many problems are named, as the queue does.
const PROBLEMS: usize = 5;

/// The state of the system.
#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// What is wrong, worst first, at most five; empty while all is well.
    pub problems: Vec<Problem>,
    pub queues: Vec<QueueOverview>,
}

/// One thing that is wrong, with the page and the command that say more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub kind: Kind,
    /// A sentence.
    pub text: String,
    /// The queue that it concerns.
    pub queue: Option<String>,
    /// The worker that it concerns.
    pub worker: Option<String>,
    /// The group of errors of the dead letters; empty for those without a group.
    pub group: Option<String>,
    /// The path of the page that says more.
    pub link: String,
    /// The command that says more.
    pub command: String,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Kind {
    Queue(ProblemKind),
    Feature(FeatureProblem),
}

/// What is wrong in a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureProblem {
    /// Destinations of callbacks are disabled, or not known now.
    Callbacks,
}

impl From<queues::Problem> for Problem {
    fn from(problem: queues::Problem) -> Self {
        let queues::Problem { kind, text, queue, worker, group, link, command } = problem;
        Self { kind: Kind::Queue(kind), text, queue, worker, group, link, command }
    }
}

/// Reads the state of all queues, and what is wrong. The cost has a bound: see [`Operator::overview`](queue::Operator::overview).
///
/// # Errors
/// [`Error::Unavailable`] when the database is unreachable.
pub async fn read(app: &App) -> Result<Overview, Error> {
    let (overview, destinations) = tokio::join!(app.operator.overview(), app.transactions.callbacks().problems());
    let queues::Overview { at, problems, queues } = overview?;
    let mut problems: Vec<Problem> = problems.into_iter().map(Problem::from).collect();
    if let Some(problem) = of_callbacks(destinations, at) {
        // Worse ones do not hide it: no other problem says that settlements are not sent.
        problems.truncate(PROBLEMS - 1);
        problems.push(problem);
    }
    Ok(Overview { at, problems, queues })
}

/// The problem of all disabled destinations together.
fn of_callbacks(destinations: Result<Arc<[DestinationProblem]>, Error>, at: OffsetDateTime) -> Option<Problem> {
    let text = match destinations {
        Err(error) => format!("the destinations of callbacks are not known now: {error}"),
        Ok(destinations) => {
            let disabled = || destinations.iter().filter_map(|one| Some((one, one.disabled_at?)));
            let (last, since) = disabled().max_by_key(|(_, since)| *since)?;
            let (ago, because) =
                (format_duration((at - since).as_seconds_f64()), last.disabled_because.as_deref().unwrap_or_default());
            match disabled().count() {
                1 => format!("callbacks to {} were disabled {ago} ago: {because}", label(&last.name)),
                many => format!(
                    "callbacks to {many} destinations are disabled, the last one {ago} ago: {}, {because}",
                    label(&last.name)
                ),
            }
        }
    };
    Some(Problem {
        kind: Kind::Feature(FeatureProblem::Callbacks),
        text,
        queue: None,
        worker: None,
        group: None,
        link: "/board/callbacks".into(),
        command: "millrace callbacks".into(),
    })
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;

    #[test]
    fn disabled_destinations_are_one_problem() {
        let at = OffsetDateTime::UNIX_EPOCH;
        let destination = |name: &str, disabled: Option<i64>| DestinationProblem {
            name: name.into(),
            failing_since: Some(at),
            disabled_at: disabled.map(|seconds| at - Duration::seconds(seconds)),
            disabled_because: disabled.map(|_| "410 Gone".into()),
        };
        let text = |destinations: &[DestinationProblem]| of_callbacks(Ok(destinations.into()), at).map(|one| one.text);
        assert_eq!(text(&[]), None);
        assert_eq!(text(&[destination("acme", None)]), None, "one that fails is retried");
        let (one, other) = (destination("", Some(40)), destination("acme", Some(30)));
        let disabled = text(&[destination("beta", None), one.clone()]);
        assert_eq!(disabled.as_deref(), Some("callbacks to the common URL were disabled 40 s ago: 410 Gone"));
        let both = text(&[one, other]);
        let expected = "callbacks to 2 destinations are disabled, the last one 30 s ago: acme, 410 Gone";
        assert_eq!(both.as_deref(), Some(expected));
        let unknown = of_callbacks(Err(Error::Unavailable("too late".into())), at).expect("a problem");
        assert_eq!(unknown.text, "the destinations of callbacks are not known now: unavailable: too late");
    }

    #[test]
    fn both_kinds_of_problems_have_the_same_fields() {
        let problem = of_callbacks(Err(Error::Unavailable("x".into())), OffsetDateTime::UNIX_EPOCH).expect("a problem");
        let of_queue = Problem { kind: Kind::Queue(ProblemKind::NoWorker), ..problem.clone() };
        let json = |problem: &Problem| serde_json::to_value(problem).expect("JSON");
        assert_eq!(json(&problem)["kind"], "callbacks");
        assert_eq!(json(&of_queue)["kind"], "no_worker");
        assert_eq!(json(&problem)["link"], "/board/callbacks");
    }
}
