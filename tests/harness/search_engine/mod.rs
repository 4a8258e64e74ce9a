//! A real search engine for tests: OpenSearch, from its jars on Maven Central, in one Java process.
//!
//! All tests of a process share one engine, one test at a time, because the product's index has one name. A start takes
//! 5 s of processor time.

mod jars;

use std::{
    io::{PipeWriter, Write},
    ops::{Deref, DerefMut},
    process::Command,
    time::Duration,
};

use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use self::jars::Jars;
use super::{
    eventually, needs,
    port::Port,
    process::{self, Process},
    scratch::Scratch,
};

/// A start takes 5 s on an idle machine, and much longer on one that compiles.
const START: Duration = Duration::from_secs(180);
const SOON: Duration = Duration::from_secs(60);

/// A running engine.
pub(crate) struct SearchEngine {
    jars: Jars,
    process: Process,
    /// The process ends when this is dropped, also because this test process has ended.
    input: PipeWriter,
    commands: u32,
    port: Port,
    folder: Scratch,
}

/// The engine, for one test alone.
pub(crate) struct Lease(MutexGuard<'static, Option<SearchEngine>>);

impl Deref for Lease {
    type Target = SearchEngine;

    fn deref(&self) -> &SearchEngine {
        self.0.as_ref().expect("an engine")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut SearchEngine {
        self.0.as_mut().expect("an engine")
    }
}

/// Waits until no other test uses the engine, and returns it without indexes. Without `OPENSEARCH=1`, or without Java or
/// Maven, records this test as not run: the product gives a response 2 s, which an engine next to all other tests may miss.
pub(crate) async fn lease() -> Option<Lease> {
    static SHARED: Mutex<Option<SearchEngine>> = Mutex::const_new(None);
    // Before the wait, so that each test that does not run is recorded.
    needs::optional_variable("OPENSEARCH")?;
    let jars = Jars::install()?;
    let mut shared = SHARED.lock().await;
    if let Some(engine) = &mut *shared {
        engine.reset().await;
    } else {
        *shared = Some(SearchEngine::start(jars).await);
    }
    Some(Lease(shared))
}

impl SearchEngine {
    async fn start(jars: Jars) -> Self {
        let (port, folder) = (Port::free(), Scratch::new());
        let (process, input) = run(&jars, &port, &folder);
        let mut engine = Self { jars, process, input, commands: 0, port, folder };
        engine.wait_until_ready().await;
        engine
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Sends a request and returns the status and the JSON of the response.
    pub(crate) async fn request(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = process::http_client().request(method, format!("{}/{path}", self.url()));
        let request = body.iter().fold(request, reqwest::RequestBuilder::json);
        let response = request.send().await.expect("a response");
        let status = response.status().as_u16();
        let text = response.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    /// Sends a request, which must succeed.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let (status, response) = self.request(method, path, body).await;
        assert!((200..300).contains(&status), "{path}: {status} {response}");
        response
    }

    /// Ends it as a power failure does.
    pub(crate) async fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.wait_for_exit(SOON).await;
    }

    /// Starts it again after a [`Self::kill`], with the same data on the same port.
    pub(crate) async fn restart(&mut self) {
        (self.process, self.input) = run(&self.jars, &self.port, &self.folder);
        self.wait_until_ready().await;
    }

    /// Fills the threads and the queue of a pool, so that the engine rejects the requests that need it.
    pub(crate) async fn occupy(&mut self, pool: &str) {
        self.command(&format!("occupy {pool}")).await;
    }

    /// Ends the effect of [`Self::occupy`].
    pub(crate) async fn release(&mut self) {
        self.command("release").await;
    }

    /// How many searches an index has run.
    pub(crate) async fn count_searches(&self, index: &str) -> u64 {
        self.statistic(index, "search", "query_total").await
    }

    /// How many documents an index has received.
    pub(crate) async fn count_written(&self, index: &str) -> u64 {
        self.statistic(index, "indexing", "index_total").await
    }

    /// A number of an index, zero if there is no such index.
    async fn statistic(&self, index: &str, group: &str, name: &str) -> u64 {
        let (_, statistics) = self.request(Method::GET, &format!("{index}/_stats/{group}"), None).await;
        statistics["_all"]["primaries"][group][name].as_u64().unwrap_or(0)
    }

    /// How many requests a pool has rejected since the start.
    pub(crate) async fn count_rejected(&self, pool: &str) -> u64 {
        let stats = self.call(Method::GET, "_nodes/stats/thread_pool", None).await;
        let node = stats["nodes"].as_object().and_then(|nodes| nodes.values().next()).expect("a node");
        node["thread_pool"][pool]["rejected"].as_u64().expect("a number")
    }

    async fn command(&mut self, command: &str) {
        self.commands += 1;
        writeln!(self.input, "{} {command}", self.commands).expect("an engine that reads");
        self.process.wait_for_line(&format!("done {}.", self.commands)).await;
    }

    /// Removes what the test before has left.
    async fn reset(&mut self) {
        if !self.process.is_running() {
            self.restart().await;
        }
        self.release().await;
        let settings = json!({ "persistent": { "cluster.*": null }, "transient": { "cluster.*": null } });
        self.call(Method::PUT, "_cluster/settings", Some(settings)).await;
        self.call(Method::DELETE, "millrace-*", None).await;
    }

    /// Waits until the engine responds and has opened its indexes.
    async fn wait_until_ready(&mut self) {
        let url = format!("{}/_cluster/health", self.url());
        let client = process::http_client();
        eventually("the search engine is ready", START, async || {
            assert!(self.process.is_running(), "the search engine ended:\n{}", self.process.log());
            let Ok(response) = client.get(&url).send().await else { return false };
            let health: Value = response.json().await.unwrap_or_default();
            matches!(health["status"].as_str(), Some("green" | "yellow"))
        })
        .await;
        self.warm_up().await;
    }

    /// Makes the engine load its classes. The product waits for 2 s for a response, and the first one may take longer.
    async fn warm_up(&self) {
        let mapping = json!({ "mappings": { "properties": { "id": { "type": "long" }, "word": { "type": "text" } } } });
        self.call(Method::PUT, "millrace-warm-up", Some(mapping)).await;
        let document = json!({ "id": 1, "word": "warm" });
        self.call(Method::PUT, "millrace-warm-up/_doc/1?refresh=true", Some(document)).await;
        let matching = |kind: &str| json!({ "multi_match": { "query": "warn", "type": kind, "fields": ["word"] } });
        let mut fuzzy = matching("best_fields");
        fuzzy["multi_match"]["fuzziness"] = "AUTO".into();
        fuzzy["multi_match"]["fuzzy_rewrite"] = "constant_score".into();
        let queries = [matching("best_fields"), matching("bool_prefix"), matching("phrase"), fuzzy]
            .map(|query| json!({ "constant_score": { "filter": query } }));
        let search = json!({ "query": { "dis_max": { "queries": queries } }, "sort": ["_score", "id"] });
        self.call(Method::POST, "millrace-warm-up/_search", Some(search)).await;
        self.call(Method::DELETE, "millrace-warm-up", None).await;
    }
}

fn run(jars: &Jars, port: &Port, folder: &Scratch) -> (Process, PipeWriter) {
    let mut command = Command::new(&jars.java);
    // The small heap and the simple compiler and collector halve the start.
    command.args(["-Xms128m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]);
    command.arg("-cp").arg(jars.class_path()).arg("SearchEngine").current_dir(&**folder);
    let path = folder.display();
    command.args([format!("path.home={path}"), format!("path.data={path}/data"), format!("http.port={port}")]);
    command.args(["cluster.name=tests", "node.name=tests", "discovery.type=single-node", "network.host=127.0.0.1"]);
    command.args(["http.type=netty4", "transport.type=netty4", "transport.port=0", "node.processors=1"]);
    // Otherwise a nearly full disk of the developer makes every index read-only.
    command.arg("cluster.routing.allocation.disk.threshold_enabled=false");
    // Under the fake clock of `.ci/at` Java may hang. The engine only measures durations, so the real clock will do.
    Process::run_with_input("search engine", command, &[("LD_PRELOAD", "")])
}

#[test]
fn the_readme_names_the_tested_version() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for document in ["README.md", "docs/configuration.md"] {
        let text = std::fs::read_to_string(root.join(document)).expect("a document");
        assert!(text.contains(&format!("OpenSearch {}", jars::version())), "{document}");
    }
}
