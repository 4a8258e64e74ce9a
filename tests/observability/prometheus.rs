//! A Prometheus server for one test, with the shipped configuration: only addresses and intervals are changed.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use reqwest::Client;
use serde_json::Value;

use super::monitored_system::MonitoredSystem;
use crate::{
    architecture::source,
    harness::{eventually, http::send, needs, port::Port, process, process::Process, scratch::Scratch},
};

/// Prometheus starts in half a second; a busy machine needs more.
const SOON: Duration = Duration::from_secs(60);

pub(super) struct Prometheus {
    url: String,
    client: Client,
    _process: Process,
    _port: Port,
    _scratch: Scratch,
}

/// A series with its current value.
pub(super) type Sample = (Value, f64);

impl Prometheus {
    /// Starts Prometheus and waits until it has scraped both processes; `None` if it is not installed.
    pub(super) async fn start(system: &MonitoredSystem) -> Option<Self> {
        let program = needs::program("prometheus")?;
        let scratch = Scratch::new();
        fs::write(scratch.join("prometheus.yml"), configuration(system)).expect("a configuration");
        fs::copy(shipped("alerts.yml"), scratch.join("alerts.yml")).expect("the rules");
        let port = Port::free();
        let mut command = Command::new(program);
        command.arg("--config.file=prometheus.yml").arg("--storage.tsdb.path=data");
        command.arg(format!("--web.listen-address=127.0.0.1:{port}")).current_dir(&*scratch);
        let process = Process::run("prometheus", command, &[]);
        let prometheus = Self {
            url: format!("http://127.0.0.1:{port}"),
            client: process::http_client(),
            _process: process,
            _port: port,
            _scratch: scratch,
        };
        eventually("both processes are scraped", SOON, async || {
            let up = prometheus.try_query("up").await.unwrap_or_default();
            up.len() == 2 && up.iter().all(|(_, value)| *value == 1.0)
        })
        .await;
        Some(prometheus)
    }

    async fn try_query(&self, expression: &str) -> Option<Vec<Sample>> {
        let escaped: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let request = self.client.get(format!("{}/api/v1/query?query={escaped}", self.url));
        let response = request.send().await.ok()?.json::<Value>().await.ok()?;
        assert_ne!(response["status"], "error", "{expression}: {response}");
        Some(samples(&response))
    }

    /// Evaluates an expression at this moment.
    pub(super) async fn query(&self, expression: &str) -> Vec<Sample> {
        self.try_query(expression).await.unwrap_or_else(|| panic!("no response to {expression}"))
    }

    /// The response of its HTTP API at a path.
    pub(super) async fn get(&self, path: &str) -> Value {
        send(self.client.get(format!("{}/api/v1/{path}", self.url))).await.json()
    }
}

/// The path of a shipped file.
pub(super) fn shipped(name: &str) -> PathBuf {
    source::root().join("deploy/prometheus").join(name)
}

fn samples(response: &Value) -> Vec<Sample> {
    let sample = |sample: &Value| {
        let value = sample["value"][1].as_str().and_then(|value| value.parse().ok()).expect("a number");
        (sample["metric"].clone(), value)
    };
    let results = response["data"]["result"].as_array();
    results.map(|results| results.iter().map(sample).collect()).unwrap_or_default()
}

/// The shipped configuration with the addresses of this test: the shipped names resolve only in a container network.
fn configuration(system: &MonitoredSystem) -> String {
    let mut text = source::read("deploy/prometheus/prometheus.yml");
    let mut replace = |from: &str, to: &str, times: usize| {
        assert_eq!(text.matches(from).count(), times, "{from:?} in prometheus.yml");
        text = text.replace(from, to);
    };
    for (job, port, note, address) in
        [("api", 8000, "", &system.api_address), ("worker", 9100, " # WORKER_HEALTH_PORT", &system.worker_address)]
    {
        let names = format!(
            "    dns_sd_configs:\n      - names: [{job}]\n        type: A\n        port: {port}{note}\n        refresh_interval: 10s\n"
        );
        replace(&names, &format!("    static_configs:\n      - targets: ['{address}']\n"), 1);
    }
    // A busy process may need half a second for its metrics, and a scrape that is too late makes all its series stale.
    replace("_interval: 10s", "_interval: 1s", 2);
    replace("scrape_timeout: 5s", "scrape_timeout: 1s", 1);
    text
}
