//! End-to-end tests of logs: files, exports, and the absence of secrets.

mod export;
mod files;
mod secrets;

use std::{
    collections::BTreeSet,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use flate2::read::GzDecoder;
use futures_util::future::join_all;
use reqwest::Client;
use serde_json::Value;

use crate::harness::{
    database::{self, TestDatabase},
    eventually,
    http::{HttpResponse, send},
    process::{Api, http_client},
    scratch::Scratch,
};

const SOON: Duration = Duration::from_secs(60);
const ADMIN: &str = "key-of-admin";
const SECRET: &str = "a-secret-of-these-tests-32-bytes-long";

/// API processes that share one log folder.
struct System {
    apis: Vec<Api>,
    client: Client,
    folder: Scratch,
    database: TestDatabase,
}

impl System {
    async fn start(processes: usize, variables: &[(&str, &str)]) -> Self {
        let (database, folder) = (database::fresh().await, Scratch::new());
        let mut system = Self { apis: Vec::new(), client: http_client(), folder, database };
        for _ in 0..processes {
            system.add(variables).await;
        }
        system
    }

    /// Starts one more process.
    async fn add(&mut self, variables: &[(&str, &str)]) {
        let folder = self.folder.to_str().expect("UTF-8");
        let own = [("LOG_DIR", folder), ("ADMIN_API_KEY", ADMIN), ("JWT_SECRET", SECRET)];
        self.apis.push(Api::start(&self.database.url, &[&own[..], variables].concat()).await);
    }

    /// Makes every process log `lines` lines of about 7 KiB each, by requests with a long path.
    async fn log(&self, lines: usize) {
        let mut noise = Noise(lines as u64);
        for batch in (0..lines).step_by(20) {
            let numbers = batch..lines.min(batch + 20);
            let paths: Vec<_> = numbers.map(|number| format!("{number}/noise-{}", noise.text(7000))).collect();
            let url = |api: &Api, path: &str| format!("{}/{path}", api.url);
            let requests = self.apis.iter().flat_map(|api| paths.iter().map(move |path| url(api, path)));
            let responses = join_all(requests.map(|url| send(self.client.get(url)))).await;
            assert!(responses.iter().all(|response| response.status == 404));
        }
    }

    fn export_request(&self, query: &str) -> reqwest::RequestBuilder {
        self.client.get(format!("{}/logs/export{query}", self.apis[0].url)).header("x-api-key", ADMIN)
    }

    async fn export(&self, query: &str) -> HttpResponse {
        send(self.export_request(query)).await
    }
}

/// Pseudo-random letters that compress badly; the same in every run.
struct Noise(u64);

impl Noise {
    fn text(&mut self, length: usize) -> String {
        let mut letter = || {
            // The constants of Knuth's linear congruential generator (MMIX).
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'0' + (self.0 >> 33) as u8 % 75)
        };
        let letters = std::iter::repeat_with(&mut letter).filter(char::is_ascii_alphanumeric);
        letters.take(length).collect()
    }
}

/// The log files in a folder, with their sizes.
fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    // A file may be deleted meanwhile.
    entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.len()))).collect()
}

/// All complete lines in a folder with their timestamps, read independently of the code under test.
///
/// While a process compresses a file, the file has two names, or the second one is incomplete: then the folder is read
/// again.
async fn lines(folder: &Path) -> Vec<(String, String)> {
    let mut texts = None;
    eventually("no file is compressed or removed", SOON, async || {
        texts = read_settled(folder);
        texts.is_some()
    })
    .await;
    let mut lines = Vec::new();
    for text in texts.expect("texts") {
        let whole = text.rsplit_once('\n').map_or("", |(whole, _torn)| whole);
        lines.extend(whole.lines().map(|line| (time(line), line.to_owned())));
    }
    lines.sort();
    lines
}

/// The texts of all files; `None` if one of them is being compressed or removed.
fn read_settled(folder: &Path) -> Option<Vec<String>> {
    let paths = || files(folder).into_iter().map(|(path, _)| path).collect::<BTreeSet<_>>();
    let found = paths();
    let is_settled = |path: &PathBuf| {
        let compressed = PathBuf::from(format!("{}.gz", path.display()));
        path.extension().is_some_and(|extension| extension != "new") && !found.contains(&compressed)
    };
    if !found.iter().all(is_settled) {
        return None;
    }
    let texts = found.iter().map(|path| read(path).ok()).collect();
    if paths() == found { texts } else { None }
}

/// The timestamp of a line, without its `Z`, so that text order is time order.
fn time(line: &str) -> String {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let text = value["timestamp"].as_str().expect("a time").trim_end_matches('Z').to_owned();
    assert_eq!(text.as_bytes()[10], b'T', "{text}");
    text
}

fn names(folder: &Path, ending: &str) -> usize {
    files(folder).iter().filter(|(path, _)| path.to_str().is_some_and(|path| path.ends_with(ending))).count()
}

/// The text of a log file, decompressed if necessary.
pub(crate) fn text(path: &Path) -> String {
    read(path).expect("text")
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    let compressed = path.extension().is_some_and(|extension| extension == "gz");
    let mut reader: Box<dyn Read> = if compressed { Box::new(GzDecoder::new(file)) } else { Box::new(file) };
    reader.read_to_string(&mut text)?;
    Ok(text)
}
