//! The shipped dashboards: no panel is empty, and everything that they refer to is provisioned.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;

use super::{alerts::metrics_in, monitored_system::MonitoredSystem, prometheus::Prometheus};
use crate::{architecture::source, harness::eventually};

const SOON: Duration = Duration::from_secs(60);
const BOARDS: [&str; 2] = ["operator", "webhook-sender"];
/// Metrics that may be NaN here: no price is fetched in this test, and no callback is sent, so the series exists and is 0 divided
/// by 0.
const MAY_BE_NAN: [&str; 3] = [
    "millrace_provider_request_duration_seconds",
    "millrace_callback_request_duration_seconds",
    "millrace_callback_delivery_seconds",
];

fn read_board(name: &str) -> Value {
    serde_json::from_str(&source::read(&format!("deploy/grafana/dashboards/{name}.json"))).expect("JSON")
}

/// The elements of an array; none if the value is something else.
fn elements(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// Title and expressions of each panel, without row headers.
fn panels(board: &Value) -> Vec<(String, Vec<String>)> {
    let panels = elements(&board["panels"]).into_iter().filter(|panel| panel["type"] != "row");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let expressions = |panel: &Value| elements(&panel["targets"]).iter().map(|target| text(&target["expr"])).collect();
    panels.map(|panel| (text(&panel["title"]), expressions(&panel))).collect()
}

/// Replaces the variables of Grafana: the rate interval covers several scrapes, and the queue is any.
fn substitute(expression: &str) -> String {
    expression.replace("$__rate_interval", "5s").replace("$queue", ".*")
}

#[tokio::test]
async fn no_panel_is_empty() {
    let system = MonitoredSystem::start(&[]).await;
    let Some(prometheus) = Prometheus::start(&system).await else { return };
    let mut round = 0;
    for name in BOARDS {
        let board = read_board(name);
        let panels = panels(&board);
        assert!(panels.len() >= 10, "{name}: {panels:?}");
        for (title, expressions) in panels {
            assert!(!expressions.is_empty(), "{name}: {title}");
            for expression in expressions {
                let query = substitute(&expression);
                assert!(!query.contains('$'), "{name}: {title}: {expression}");
                let may_be_nan = MAY_BE_NAN.iter().any(|metric| expression.contains(metric));
                // A rate needs traffic in each of its windows.
                eventually(&format!("{name}: {title}: {query} has a value"), SOON, async || {
                    let found = prometheus.query(&query).await;
                    let has_value = found.iter().any(|(_, value)| may_be_nan || value.is_finite());
                    if !has_value {
                        round += 1;
                        system.traffic(round).await;
                    }
                    has_value
                })
                .await;
            }
        }
        for variable in elements(&board["templating"]["list"]) {
            let query = variable["query"].as_str().expect("a query");
            let inner = query.strip_prefix("label_values(").and_then(|query| query.strip_suffix(')'));
            let (metric, label) = inner.and_then(|inner| inner.split_once(", ")).expect("label_values(metric, label)");
            let mut found = Vec::new();
            // A series is stale after a scrape that was too late.
            eventually(&format!("{name}: {metric} exists"), SOON, async || {
                found = prometheus.query(metric).await;
                !found.is_empty()
            })
            .await;
            assert!(found.iter().all(|(labels, _)| labels[label].is_string()), "{name}: {query}");
        }
    }
}

#[test]
fn everything_that_dashboards_refer_to_is_provisioned() {
    let source = source::read("deploy/grafana/provisioning/datasources/prometheus.yml");
    assert!(source.contains("    uid: prometheus\n"), "{source}");
    let scrape = "  scrape_interval: 10s\n";
    assert!(source::read("deploy/prometheus/prometheus.yml").contains(scrape), "the same as timeInterval: {source}");
    assert!(source.contains("timeInterval: 10s "), "{source}");
    let (mut uids, mut named) = (BTreeSet::new(), BTreeSet::new());
    for name in BOARDS {
        let board = read_board(name);
        assert!(uids.insert(board["uid"].as_str().expect("a uid").to_owned()), "{name}");
        let mut ids = BTreeSet::new();
        let mut places = Vec::new();
        for panel in elements(&board["panels"]) {
            assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{name}: {panel}");
            let place = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a side"));
            let [x, y, width, height] = place;
            let is_apart = |[other_x, other_y, other_width, other_height]: &[u64; 4]| {
                let is_next_to = other_x + other_width <= x || x + width <= *other_x;
                is_next_to || other_y + other_height <= y || y + height <= *other_y
            };
            assert!(x + width <= 24 && places.iter().all(is_apart), "{name}: {panel} overlaps another panel");
            places.push(place);
            if panel["type"] != "row" {
                assert_eq!(panel["datasource"]["uid"], "prometheus", "{name}: {panel}");
                assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{name}: {panel}");
            }
        }
        named.extend(panels(&board).iter().flat_map(|(_, expressions)| expressions).flat_map(|one| metrics_in(one)));
    }
    // Every metric that is promised to operators is on a dashboard.
    for metric in [
        "jobs_enqueued_total",
        "jobs_finished_total",
        "job_wait_seconds_bucket",
        "job_run_seconds_bucket",
        "queue_depth",
        "queue_oldest_age_seconds",
        "jobs_rescued_total",
        "jobs_fenced_total",
        "listener_up",
        "dead_jobs",
        "cron_lag_seconds",
        "db_pool_wait_seconds_bucket",
        "webhook_conflicts_total",
        "queue_paused",
        "jobs_cancelled_total",
        "claim_errors_total",
        "callbacks_total",
        "callback_delivery_seconds_bucket",
        "callback_destinations",
    ] {
        assert!(named.contains(&format!("millrace_{metric}")), "{metric} is on no dashboard");
    }
}
