//! Configuration errors: all are reported at once, one line each, without secrets.

use std::process::Command;

use super::{run, startup_problems};
use crate::harness::{process::Process, scratch::Scratch};

/// Wrong values of variables that every command reads.
const WRONG: &[(&str, &str)] = &[
    ("ENV", "production"),
    ("DATABASE_URL", "mysql://me:hunter2@db/x"),
    ("LOG_FORMAT", "xml"),
    ("RUST_LOG", "jobs=hunter2"),
    ("LOG_FILE_MB", "0"),
    ("PROCESSING_DELAY_SECONDS", "-1"),
    ("PROCESSOR_URL", "ftp://me:hunter2@processor"),
    ("PROCESSOR_ATTEMPTS", "0"),
    ("PROCESSOR_TIMEOUT_SECONDS", "soon"),
    ("CALLBACK_URL", "https://me:hunter2@receiver.example.com/"),
    ("CALLBACK_SECRET", "hunter2"),
    ("CALLBACK_ALLOW_PRIVATE", "hunter2"),
];

/// Wrong values of variables that only the API reads.
const WRONG_FOR_API: &[(&str, &str)] = &[
    ("HOST", "hunter2.example.com"),
    ("PORT", "65536"),
    ("STORAGE_BACKEND", "paper"),
    ("WEBHOOK_SECRET", "hunter2"),
    ("WEBHOOK_CONFLICT", "maybe"),
    ("JWT_SECRET", "hunter2"),
    ("RATE_LIMIT", "hunter2"),
];

#[tokio::test]
async fn every_wrong_value_is_reported_at_once_without_secrets() {
    let api = [WRONG, WRONG_FOR_API].concat();
    let port = ("WORKER_HEALTH_PORT", "hunter2");
    let worker = [WRONG, &[("HOST", "hunter2"), port]].concat();
    let all_in_one = [&api[..], &[port]].concat();
    for (arguments, wrong) in
        [(&["api"][..], &api), (&["worker"], &worker), (&[], &all_in_one), (&["migrate"], &WRONG.to_vec())]
    {
        let problems = startup_problems(arguments, wrong).await;
        let mut named: Vec<_> = problems.iter().map(|(name, _)| &**name).collect();
        let mut expected: Vec<_> = wrong.iter().map(|(name, _)| *name).collect();
        named.sort_unstable();
        expected.sort_unstable();
        assert_eq!(named, expected, "{arguments:?}: {problems:#?}");
        for (name, problem) in &problems {
            assert!(!problem.contains("hunter2"), "{arguments:?}: {name}: {problem}");
            assert!(problem.contains("must be"), "{arguments:?}: {name}: {problem}");
        }
    }
}

#[tokio::test]
async fn each_limit_of_a_value_is_enforced() {
    let database = ("DATABASE_URL", "postgres://nowhere.invalid/x");
    for (name, value, example) in [
        ("PROCESSING_DELAY_SECONDS", "NaN", "such as 30"),
        ("PROCESSING_DELAY_SECONDS", "inf", "such as 30"),
        ("PROCESSING_DELAY_SECONDS", "30s", "such as 30"),
        ("PROCESSOR_ATTEMPTS", "1.5", "such as 10"),
        ("PROCESSOR_TIMEOUT_SECONDS", "0", "such as 30"),
        ("PROCESSOR_URL", "processor.example.com", "such as https://"),
        ("PORT", "-1", "such as 8000"),
        ("PORT", "http", "such as 8000"),
        ("DATABASE_URL", "postgres://[half", "such as postgres://"),
        ("DATABASE_URL", "postgres://u@a,b/x", "names several hosts"),
        ("DATABASE_URL", "postgres://u@a/x?connect_timeout=5", "connect_timeout is not supported"),
        ("WEBHOOK_SECRET", "whsec_dG9vIHNob3J0", "such as WEBHOOK_SECRET="),
        ("API_KEY_FILE", "/nowhere", "such as API_KEY_FILE=/run/secrets/api_key"),
        ("QUEUE_FAIR_BY", "address", "such as QUEUE_FAIR_BY=sender"),
        ("ENV", "PROD", "such as ENV=prod"),
        ("RATE_LIMIT", "120/60", "such as RATE_LIMIT=120/60s"),
        ("LOG_FILE_MB", "64MB", "such as 64"),
        ("CRYPTO_PROVIDERS", "coingecko,krakn", "entry 2 of the list must be coingecko, kraken, coinbase or binance"),
        ("LOG_KEEP_MB", "255", "such as LOG_KEEP_MB=1024"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "such as OTEL_EXPORTER_OTLP_ENDPOINT=http://"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "no pair", "such as OTEL_EXPORTER_OTLP_HEADERS=x-api-key=KEY"),
        ("OTEL_RESOURCE_ATTRIBUTES", "no pair", "such as deployment.environment.name=prod"),
        ("OTEL_TRACES_SAMPLER", "sometimes", "such as OTEL_TRACES_SAMPLER="),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5", "such as 1"),
    ] {
        let problems = startup_problems(&["api"], &[database, (name, value)]).await;
        assert_eq!(problems.len(), 1, "{name}={value}: {problems:?}");
        assert_eq!(problems[0].0, name, "{value}: {problems:?}");
        assert!(problems[0].1.contains(example), "{name}={value}: {problems:?}");
    }
    // A blank value counts as unset, and blanks around a value are removed.
    for command in ["api", "worker", "migrate"] {
        for variables in [&[][..], &[("DATABASE_URL", "")], &[("DATABASE_URL", "  "), ("PORT", "")]] {
            let problems = startup_problems(&[command], variables).await;
            assert_eq!(problems.len(), 1, "{command} {variables:?}: {problems:?}");
            assert_eq!(problems[0].0, "DATABASE_URL", "{command}");
            assert!(problems[0].1.contains("must be set, such as postgres://"), "{command}: {problems:?}");
        }
    }
}

#[tokio::test]
async fn the_env_file_is_read_and_its_values_are_not_printed() {
    let folder = Scratch::new();
    std::fs::write(folder.join(".env"), "PORT=notaport\nWEBHOOK_CONFLICT=maybe\n").unwrap();
    let mut process = Process::start_in(&folder, &["api"], &[("WEBHOOK_CONFLICT", "reject")]);
    assert!(!process.wait_for_exit(super::SOON).await.success());
    let log = process.log();
    assert!(log.contains("PORT: ") && log.contains("DATABASE_URL: ") && !log.contains("WEBHOOK_CONFLICT"), "{log}");

    std::fs::write(folder.join(".env"), "PORT=0\nAPI_KEY=\"hunter2 without an end\n").unwrap();
    let mut process = Process::start_in(&folder, &["api"], &[]);
    assert!(!process.wait_for_exit(super::SOON).await.success());
    let log = process.log();
    assert!(log.contains(".env line 2: ") && !log.contains("hunter2"), "{log}");
}

/// An unreadable secret must not count as unset.
#[tokio::test]
async fn a_value_that_is_not_utf8_is_wrong_not_unset() {
    use std::os::unix::ffi::OsStrExt;
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    let secret = std::ffi::OsStr::from_bytes(b"whsec_\xff\xfe");
    command.arg("api").env_clear().env("WEBHOOK_SECRET", secret).current_dir("/");
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("WEBHOOK_SECRET: "), "{errors}");
}

#[tokio::test]
async fn help_lists_the_commands_and_unknown_commands_are_refused() {
    let (succeeded, help) = run(&["--help"], &[]).await;
    assert!(succeeded, "{help}");
    for text in ["api", "worker", "migrate", "DATABASE_URL", "Usage: millrace"] {
        assert!(help.contains(text), "{text}: {help}");
    }
    let (succeeded, version) = run(&["--version"], &[]).await;
    assert!(succeeded && version.starts_with("millrace "), "{version}");
    let (succeeded, output) = run(&["migrat"], &[]).await;
    assert!(!succeeded && output.contains("migrate"), "{output}");
}

#[tokio::test]
async fn an_unavailable_port_or_folder_is_reported_at_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let database = crate::harness::database::fresh().await;
    let url = ("DATABASE_URL", &*database.url);
    for (command, name) in [("api", "PORT"), ("worker", "WORKER_HEALTH_PORT")] {
        let (succeeded, log) = run(&[command], &[url, (name, &port)]).await;
        assert!(!succeeded && log.contains(name) && log.contains(&port), "{command}: {log}");
        let problems = startup_problems(&[command], &[url, ("PORT", "0"), ("LOG_DIR", "/proc/nowhere")]).await;
        assert_eq!((problems.len(), &*problems[0].0), (1, "LOG_DIR"), "{command}: {problems:?}");
    }
}
