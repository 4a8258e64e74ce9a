//! Log exports: exactly the lines of the range, for operators only, streamed without buffering in memory.

use std::{
    io::{Read, Write},
    time::Duration,
};

use flate2::read::GzDecoder;
use jobs::users::{Role, UserId, token::Tokens};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{ADMIN, SECRET, System, files, lines, time};
use crate::harness::{eventually, http::send};

const SOON: Duration = Duration::from_secs(60);
/// The limit of a download of 200 MiB.
const LONG: Duration = Duration::from_secs(600);

fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).expect("a time")
}

/// Waits for the log entry of the export with this correlation id, which is written after the response, and returns it.
async fn export_entry(system: &System, correlation_id: &str) -> Value {
    let mut entry = None;
    eventually("the export is logged", SOON, async || {
        let log = system.apis[0].process.log();
        let mut lines = log.lines().filter(|line| line.contains(r#""event":"logs exported""#));
        entry = lines.find(|line| line.contains(correlation_id)).map(str::to_owned);
        entry.is_some()
    })
    .await;
    serde_json::from_str(&entry.expect("a line")).expect("JSON")
}

/// The correlation id of a response.
fn correlation_id(response: &reqwest::Response) -> String {
    response.headers()["x-correlation-id"].to_str().expect("ASCII").to_owned()
}

#[tokio::test]
async fn an_export_has_exactly_the_lines_of_its_range() {
    let system = System::start(2, &[("LOG_FILE_MB", "1")]).await;
    system.log(200).await;
    let from = now();
    system.log(300).await;
    let to = now();
    let (first, last) = (from.trim_end_matches('Z'), to.trim_end_matches('Z'));
    let within = |time: &str| first <= time && time < last;
    let in_files =
        async || lines(&system.folder).await.into_iter().filter(|(time, _)| within(time)).collect::<Vec<_>>();
    // A line is written some time after its response.
    eventually("the lines of all requests are in the files", SOON, async || {
        in_files().await.iter().filter(|(_, line)| line.contains("/noise-")).count() >= 600
    })
    .await;
    let written = async {
        // The processes keep logging during the export, and rotate and compress files.
        let range = format!("?from={from}&to={to}");
        let plain = system.export(&range).await;
        let gz = system.export_request(&format!("{range}&format=jsonl.gz")).send().await.expect("a response");
        (plain, gz)
    };
    let ((plain, gz), ()) = tokio::join!(written, system.log(300));
    assert_eq!((plain.status, plain.header("content-type")), (200, "application/x-ndjson"), "{:?}", plain.headers);
    assert!(plain.header("content-disposition").starts_with("attachment; filename=\"millrace-logs-20"));
    assert_eq!((gz.status().as_u16(), &gz.headers()["content-type"]), (200, &"application/gzip".parse().unwrap()));
    let gz_id = correlation_id(&gz);
    let bytes = gz.bytes().await.expect("a complete response");
    let mut text = String::new();
    GzDecoder::new(&bytes[..]).read_to_string(&mut text).expect("whole");
    assert!(text == plain.text, "{} and {} bytes", text.len(), plain.text.len());

    let exported: Vec<(String, String)> = plain.text.lines().map(|line| (time(line), line.to_owned())).collect();
    let mut sorted = exported.clone();
    sorted.sort();
    let expected = in_files().await;
    assert!(sorted == expected, "{} lines of {}", sorted.len(), expected.len());
    assert!(sorted.len() >= 600, "{}", sorted.len());
    // Another thread's line may overtake a line between its timestamp and the queue, by a moment at most.
    let second = |text: &str| OffsetDateTime::parse(&format!("{text}Z"), &Rfc3339).expect("a time");
    assert!(exported.windows(2).all(|pair| second(&pair[0].0) - second(&pair[1].0) < time::Duration::seconds(1)));

    let line = export_entry(&system, plain.header("x-correlation-id")).await;
    assert_eq!((&line["who"], &line["from"], &line["to"]), (&"ADMIN_API_KEY".into(), &from.into(), &to.into()));
    assert_eq!(
        (line["lines"].as_u64(), line["bytes"].as_u64()),
        (Some(sorted.len() as u64), Some(plain.text.len() as u64))
    );
    assert_eq!((&line["broken"], &line["correlation_id"]), (&0.into(), &plain.header("x-correlation-id").into()));
    assert_eq!(export_entry(&system, &gz_id).await["bytes"], bytes.len());
}

#[tokio::test]
async fn exports_need_the_admin_key_and_a_valid_range() {
    let system = System::start(1, &[("API_KEY", "key-of-private-routes")]).await;
    let url = format!("{}/logs/export", system.apis[0].url);
    let tokens = Tokens::new(SECRET.as_bytes());
    let bearer = |role| format!("Bearer {}", tokens.issue(UserId(7), role).expect("a token"));
    let mut callers = Vec::new();
    for (name, value, status) in [
        ("x-nothing", "", 403),
        ("x-api-key", "key-of-private-routes", 403),
        ("x-api-key", "unknown-key", 403),
        ("authorization", "Bearer x", 401),
        ("authorization", &bearer(Role::User), 403),
        ("authorization", &bearer(Role::Admin), 200),
        ("x-api-key", ADMIN, 200),
    ] {
        let response = send(system.client.get(&url).header(name, value)).await;
        assert_eq!(response.status, status, "{name}: {value}: {response:?}");
        if status == 200 {
            callers.push(export_entry(&system, response.header("x-correlation-id")).await["who"].clone());
        }
    }
    assert_eq!(callers, ["user 7", "ADMIN_API_KEY"]);

    let wrong = system.export("?from=yesterday&to=2024-01-15&format=csv").await;
    let failures = wrong.validation_errors();
    let kinds: Vec<_> = failures.iter().map(|(kind, at, _)| (&**kind, &**at)).collect();
    let expected = [
        ("datetime_parsing", r#"["query","from"]"#),
        ("datetime_parsing", r#"["query","to"]"#),
        ("enum", r#"["query","format"]"#),
    ];
    assert_eq!((wrong.status, &kinds[..]), (422, &expected[..]), "{wrong:?}");
    assert_eq!(failures[2].2, "Input should be 'jsonl' or 'jsonl.gz'");
    let wrong = system.export("?from=2024-01-15T10:30:01Z&to=2024-01-15T10:30:00Z").await;
    let expected = ("value_error", r#"["query","from"]"#, "Value error, from must not be after to");
    assert_eq!(
        wrong.validation_errors().iter().map(|(kind, at, text)| (&**kind, &**at, &**text)).collect::<Vec<_>>(),
        [expected]
    );

    // A HEAD request reads no lines.
    let head = send(system.client.head(&url).header("x-api-key", ADMIN)).await;
    assert_eq!((head.status, head.header("content-type"), &*head.text), (200, "application/x-ndjson", ""));
}

#[tokio::test]
async fn without_log_dir_an_export_is_a_404() {
    let system = System::start(1, &[("LOG_DIR", "")]).await;
    let problem = system.export("").await.assert_problem(404, "no folder");
    assert_eq!(problem["detail"], "LOG_DIR is not set: no logs are kept");
}

/// A complete response, not a broken connection.
#[tokio::test]
async fn an_export_of_an_unreadable_folder_is_a_503() {
    let mut system = System::start(1, &[]).await;
    assert_eq!(system.export("").await.status, 200);
    let away = system.folder.with_extension("away");
    std::fs::rename(&*system.folder, &away).expect("renamed");
    // A file, so that no process can create the folder again.
    std::fs::write(&*system.folder, "").expect("written");
    for format in ["jsonl", "jsonl.gz"] {
        let refused = system.export(&format!("?format={format}")).await;
        refused.assert_problem(503, format);
        assert_eq!(refused.header("retry-after"), "1", "{refused:?}");
    }
    let head = send(system.client.head(format!("{}/logs/export", system.apis[0].url)).header("x-api-key", ADMIN)).await;
    assert_eq!(head.status, 503, "HEAD has the status of GET");
    std::fs::remove_file(&*system.folder).expect("removed");
    std::fs::rename(&away, &*system.folder).expect("renamed");
    let warning = system.apis[0].process.wait_for_line("LOG_DIR cannot be read").await;
    assert!(warning.contains(r#""level":"warn""#), "{warning}");
    assert_eq!(system.export("").await.status, 200);
}

#[tokio::test]
async fn a_large_export_uses_little_memory_and_stops_when_the_client_disconnects() {
    const LINES: usize = 200 * 1024;
    let system = System::start(1, &[]).await;
    // A name of an earlier release, so that no process compresses the file.
    let path = system.folder.join("api-1.2026-11-20.jsonl");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).expect("a file"));
    let rest = format!(r#"","level":"info","event":"x","filling":"{}"}}"#, "y".repeat(945));
    for number in 0..LINES {
        let (second, micro) = (number / 1000 % 60, number % 1000 + 1000);
        writeln!(file, r#"{{"timestamp":"2026-11-20T12:{:02}:{second:02}.{micro}1Z{rest}"#, number / 60_000)
            .expect("written");
    }
    file.into_inner().expect("written").sync_all().expect("written");
    let size = files(&system.folder).iter().map(|(_, size)| *size).max().expect("a file");
    assert!(size > 200 << 20, "{size}");

    let before = peak_memory(system.apis[0].process.pid());
    let range = "?from=2026-11-20T12:00:00Z&to=2026-11-20T13:00:00Z";
    let mut bytes = 0;
    let mut response = system.export_request(range).timeout(LONG).send().await.expect("a response");
    let whole = correlation_id(&response);
    while let Some(chunk) = response.chunk().await.expect("a chunk") {
        bytes += chunk.len() as u64;
    }
    let after = peak_memory(system.apis[0].process.pid());
    println!("{} MiB exported; memory at most {before} KiB before, {after} KiB after", bytes >> 20);
    assert_eq!(bytes, size);
    assert!(after < before + 16 * 1024, "{before} KiB, then {after} KiB");

    // A client that disconnects in between is noticed, and the log entry has the error.
    let mut response = system.export_request(range).send().await.expect("a response");
    let part = correlation_id(&response);
    assert!(response.chunk().await.expect("a chunk").is_some());
    drop(response);
    assert_eq!(export_entry(&system, &whole).await["lines"], LINES);
    let entry = export_entry(&system, &part).await;
    assert!(entry["error"].as_str().is_some_and(|error| error.contains("disconnected")), "{entry}");
    assert!(entry["bytes"].as_u64() < Some(size));
}

/// The peak memory of a process, in KiB.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
