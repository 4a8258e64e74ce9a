//! The shipped alert rules: they pass their unit tests, and use only metrics that exist.

use std::{collections::BTreeSet, process::Command, time::Duration};

use serde_json::Value;

use super::{
    monitored_system::MonitoredSystem,
    prometheus::{Prometheus, shipped},
};
use crate::{
    architecture::source,
    harness::{eventually, needs},
};

const SOON: Duration = Duration::from_secs(30);

/// The metrics of Millrace, and Prometheus' `up`, that an expression uses.
pub(super) fn metrics_in(expression: &str) -> BTreeSet<String> {
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = expression.split(|c| !letter(c));
    let is_metric = |word: &&str| {
        ["millrace_", "http_server_", "probe_", "webhook:"].iter().any(|prefix| word.starts_with(prefix))
            || *word == "up"
    };
    words.filter(is_metric).map(str::to_owned).collect()
}

#[test]
fn the_rules_pass_their_unit_tests() {
    let Some(promtool) = needs::program("promtool") else { return };
    for arguments in
        [["check", "config", "prometheus.yml"], ["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]]
    {
        let mut command = Command::new(&promtool);
        let output = command.args(arguments).current_dir(shipped("")).output().expect("promtool");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
    let tests = source::read("deploy/prometheus/alerts_test.yml");
    for alert in source::read("deploy/prometheus/alerts.yml").lines().filter_map(|line| line.split_once("- alert: ")) {
        assert!(source::names(&tests, alert.1), "{} has no test", alert.1);
    }
}

#[tokio::test]
async fn rules_use_existing_metrics_and_a_healthy_system_fires_no_alert() {
    let system = MonitoredSystem::start(&[]).await;
    let Some(prometheus) = Prometheus::start(&system).await else { return };
    system.traffic(1).await;
    let rules = async || -> Vec<Value> {
        let response = prometheus.get("rules").await;
        let groups = response["data"]["groups"].as_array().cloned().unwrap_or_default();
        groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect()
    };
    eventually("every rule has been evaluated", SOON, async || {
        let rules = rules().await;
        rules.len() > 10 && rules.iter().all(|rule| rule["health"] == "ok")
    })
    .await;
    let rules = rules().await;
    for rule in &rules {
        let expression = rule["query"].as_str().expect("an expression");
        let named = metrics_in(expression);
        assert!(!named.is_empty(), "{rule}");
        for name in named {
            eventually(&format!("{name} exists"), SOON, async || !prometheus.query(&name).await.is_empty()).await;
        }
        for text in ["summary", "runbook"] {
            let annotated = rule["annotations"][text].as_str().is_some_and(|text| text.len() > 10);
            assert!(annotated || rule["type"] == "recording", "{text}: {rule}");
        }
    }
    let firing = prometheus.query("ALERTS{alertstate=\"firing\"}").await;
    assert!(firing.is_empty(), "{firing:?}");
}
