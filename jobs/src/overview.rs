//! What operators see first: the state of all queues, and what is wrong in queues and in features.

use std::{sync::Arc, time::Duration};

use time::OffsetDateTime;
use tokio::{sync::Notify, time::sleep};

use crate::{
    app::App,
    transactions::callbacks::model::{DestinationProblem, label},
};
use queue::{
    operator::overview::{Overview, OverviewCache, Problem, ProblemKind},
    status::format_duration,
};
use runtime::error::Error;

/// Destinations of callbacks are disabled, or not known now.
const CALLBACKS: ProblemKind = ProblemKind::new("callbacks");

/// How much longer than the queues the destinations may take: their list is small. If the database is distant or busy, both
/// take long.
const DESTINATIONS_LATER: Duration = Duration::from_millis(500);

/// Reads the state of all queues, and what is wrong. The cost has a bound: see [`Operator::overview`](queue::Operator::overview).
///
/// # Errors
/// [`Error::Unavailable`] when the database is unreachable.
pub async fn read(app: &App) -> Result<Overview, Error> {
    watch(app, &mut OverviewCache::default()).await
}

/// The same for a view that looks every few seconds: see
/// [`Operator::watch_overview`](queue::Operator::watch_overview).
///
/// # Errors
/// [`Error::Unavailable`] when the database is unreachable.
pub async fn watch(app: &App, cache: &mut OverviewCache) -> Result<Overview, Error> {
    let are_queues_read = Notify::new();
    let overview = async {
        let overview = app.operator.watch_overview(cache).await;
        are_queues_read.notify_one();
        overview
    };
    let late = async {
        are_queues_read.notified().await;
        sleep(DESTINATIONS_LATER).await;
    };
    let (overview, destinations) = tokio::join!(overview, app.transactions.callbacks().problems(late));
    let mut overview = overview?;
    if let Some(problem) = of_callbacks(destinations, overview.at) {
        // No other problem says that settlements are not sent.
        overview.add_problem(problem);
    }
    Ok(overview)
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
    Some(Problem::of_feature(CALLBACKS, text, "/board/callbacks", "millrace callbacks"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disabled_destinations_are_one_problem() {
        let at = OffsetDateTime::UNIX_EPOCH;
        let destination = |name: &str, disabled: Option<i64>| DestinationProblem {
            name: name.into(),
            failing_since: Some(at),
            disabled_at: disabled.map(|seconds| at - time::Duration::seconds(seconds)),
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
    fn it_is_listed_after_four_problems_of_queues() {
        let at = OffsetDateTime::UNIX_EPOCH;
        let problem = of_callbacks(Err(Error::Unavailable("x".into())), at).expect("a problem");
        let of_queue = Problem { kind: ProblemKind::NO_WORKER, ..problem.clone() };
        let mut overview = Overview { at, rates_at: at, problems: vec![of_queue; 5], queues: Vec::new() };
        overview.add_problem(problem);
        let json = serde_json::to_value(&overview).expect("JSON");
        let kinds: Vec<_> = (0..6).map(|index| json["problems"][index]["kind"].as_str()).collect();
        let four = [Some("no_worker"); 4];
        assert_eq!(kinds, [&four[..], &[Some("callbacks"), None]].concat());
        assert_eq!(json["problems"][4]["link"], "/board/callbacks");
    }
}
