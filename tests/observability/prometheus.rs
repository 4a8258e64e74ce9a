//! A Prometheus of one test's own, under our configuration: the shipped file with other addresses, and in more of a hurry.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use reqwest::Client;
use serde_json::Value;

use super::stand::Stand;
use crate::{
    architecture::source,
    harness::{eventually, http::send, needs, port::Port, process, process::Process, scratch::Scratch},
};

/// It starts in half a second.
const SOON: Duration = Duration::from_secs(60);

pub struct Prometheus {
    url: String,
    client: Client,
    _process: Process,
    _port: Port,
    _scratch: Scratch,
}

/// A series with its value at this moment.
pub type Sample = (Value, f64);

impl Prometheus {
    /// Starts one, where the machine has it, that scrapes both processes, and waits until it has.
    pub async fn start(stand: &Stand) -> Option<Self> {
        let program = needs::program("prometheus")?;
        let scratch = Scratch::new();
        fs::write(scratch.join("prometheus.yml"), configuration(stand)).expect("a configuration");
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
        let answer = request.send().await.ok()?.json::<Value>().await.ok()?;
        assert_ne!(answer["status"], "error", "{expression}: {answer}");
        Some(samples(&answer))
    }

    /// The series that an expression has at this moment.
    pub async fn query(&self, expression: &str) -> Vec<Sample> {
        self.try_query(expression).await.unwrap_or_else(|| panic!("no answer to {expression}"))
    }

    /// What it says at a path of its interface.
    pub async fn get(&self, path: &str) -> Value {
        send(self.client.get(format!("{}/api/v1/{path}", self.url))).await.json()
    }
}

/// The path of a shipped file.
pub fn shipped(name: &str) -> PathBuf {
    source::root().join("deploy/prometheus").join(name)
}

fn samples(answer: &Value) -> Vec<Sample> {
    let sample = |sample: &Value| {
        let value = sample["value"][1].as_str().and_then(|value| value.parse().ok()).expect("a number");
        (sample["metric"].clone(), value)
    };
    let results = answer["data"]["result"].as_array();
    results.map(|results| results.iter().map(sample).collect()).unwrap_or_default()
}

/// The shipped file, with the addresses of this test in place of names that only a network of containers resolves.
fn configuration(stand: &Stand) -> String {
    let mut text = source::read("deploy/prometheus/prometheus.yml");
    let mut replace = |from: &str, to: &str, times: usize| {
        assert_eq!(text.matches(from).count(), times, "{from:?} in prometheus.yml");
        text = text.replace(from, to);
    };
    for (job, port, note, address) in
        [("api", 8000, "", &stand.api_address), ("worker", 9100, " # WORKER_HEALTH_PORT", &stand.worker_address)]
    {
        let names = format!(
            "    dns_sd_configs:\n      - names: [{job}]\n        type: A\n        port: {port}{note}\n        refresh_interval: 10s\n"
        );
        replace(&names, &format!("    static_configs:\n      - targets: ['{address}']\n"), 1);
    }
    replace("_interval: 10s", "_interval: 500ms", 2);
    replace("scrape_timeout: 5s", "scrape_timeout: 500ms", 1);
    text
}
