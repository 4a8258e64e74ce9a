//! `/metrics` of API and worker: valid for Prometheus, complete and correct.

use std::{
    collections::BTreeSet,
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use nix::sys::signal::Signal;

use super::{monitored_system::MonitoredSystem, prometheus::Prometheus};
use crate::harness::{
    database, eventually,
    http::send,
    needs,
    process::{Api, Process, http_client},
};

const SOON: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(90);

/// The contract promises these series from the start, in both processes.
const PROMISED: [&str; 26] = [
    "millrace_jobs_enqueued_total{queue=\"process_transaction\"} 0",
    "millrace_jobs_finished_total{queue=\"process_transaction\",outcome=\"dead\"} 0",
    "millrace_job_wait_seconds_count{queue=\"process_transaction\"} 0",
    "millrace_job_run_seconds_count{queue=\"process_transaction\"} 0",
    "millrace_queue_depth{queue=\"index_item\",state=\"waiting\"} 0",
    "millrace_queue_depth{queue=\"index_item\",state=\"due\"} 0",
    "millrace_queue_depth{queue=\"index_item\",state=\"running\"} 0",
    "millrace_queue_oldest_age_seconds{queue=\"reconcile_rate\"} 0",
    "millrace_jobs_rescued_total{queue=\"fetch_prices\"} 0",
    "millrace_jobs_fenced_total{queue=\"fetch_prices\"} 0",
    "millrace_dead_jobs{queue=\"fetch_prices\"} 0",
    "millrace_queue_paused{queue=\"fetch_prices\"} 0",
    "millrace_workers_needed{queue=\"fetch_prices\"} 0",
    "millrace_jobs_cancelled_total{queue=\"fetch_prices\"} 0",
    "millrace_claim_errors_total{queue=\"fetch_prices\"} 0",
    "millrace_jobs_finished_total{queue=\"process_transaction\",outcome=\"cancelled\"} 0",
    "millrace_webhook_conflicts_total 0",
    "millrace_chain_errors_total{reason=\"unfunded\"} 0",
    "millrace_webhooks_accepted_total{outcome=\"new\"} 0",
    "millrace_webhooks_accepted_total{outcome=\"replayed\"} 0",
    "millrace_callbacks_total{outcome=\"delivered\"} 0",
    "millrace_callbacks_total{outcome=\"gave_up\"} 0",
    "millrace_callback_request_duration_seconds_count 0",
    "millrace_callback_delivery_seconds_count 0",
    "millrace_callback_destinations{state=\"disabled\"} 0",
    "probe_created_total 0",
];

fn value(metrics: &str, series: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// All series with their labels, without histogram buckets.
fn labels(metrics: &str) -> BTreeSet<String> {
    let lines = metrics.lines().filter(|line| !line.starts_with('#') && !line.contains("le=\""));
    lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
}

#[tokio::test]
async fn both_processes_serve_all_metrics_in_valid_form() {
    let system = MonitoredSystem::start(&[]).await;
    let mut first = system.metrics().await;
    // A scrape waits for two seconds for the queues, and half a second for the destinations of callbacks.
    eventually("both processes have read the gauges", SOON, async || {
        let gauges =
            ["millrace_queue_measured_timestamp_seconds", "millrace_callback_destinations{state=\"disabled\"}"];
        let is_read = |metrics: &String| gauges.iter().all(|gauge| value(metrics, gauge).is_some());
        let are_read = first.iter().all(is_read);
        if !are_read {
            first = system.metrics().await;
        }
        are_read
    })
    .await;
    for metrics in &first {
        for series in PROMISED {
            assert!(metrics.lines().any(|line| line == series), "{series}:\n{metrics}");
        }
        for name in ["millrace_listener_up", "millrace_db_pool_wait_seconds_count", "millrace_workers_live"] {
            assert!(value(metrics, name).is_some(), "{name}:\n{metrics}");
        }
    }
    // Only a worker reads schedules: a gauge that a process has not measured is absent.
    assert!(!first[0].contains("\nmillrace_cron_lag_seconds{"), "{}", first[0]);
    let lag = "millrace_cron_lag_seconds{schedule=\"daily_prices\"} 0";
    eventually("the worker has read the schedules", SOON, async || {
        system.metrics().await[1].lines().any(|line| line == lag)
    })
    .await;
    system.traffic(1).await;
    let second = system.metrics().await;
    system.traffic(2).await;
    let third = system.metrics().await;
    for (before, after) in second.iter().zip(&third) {
        assert_eq!(labels(before), labels(after), "no label contains an id");
    }
    // The contract promises a latency of half a second, so it must be a bucket edge.
    let has_edge =
        |line: &str| line.starts_with("http_server_request_duration_seconds_bucket{") && line.contains("le=\"0.5\"");
    assert!(third[0].lines().any(has_edge), "{}", third[0]);
    for metrics in &third {
        assert!(value(metrics, "millrace_db_pool_wait_seconds_count").unwrap() > 0.0, "{metrics}");
    }
    let Some(promtool) = needs::program("promtool") else { return };
    for metrics in third {
        let mut check = Command::new(&promtool);
        check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut check = check.spawn().expect("promtool");
        check.stdin.take().expect("its input").write_all(metrics.as_bytes()).expect("a reader");
        let output = check.wait_with_output().expect("its end");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && text.is_empty(), "{text}");
    }
}

#[tokio::test]
async fn gauges_show_the_queues_and_that_no_worker_is_live() {
    let fast = [("QUEUE_LEASE_SECONDS", "2"), ("QUEUE_HEARTBEAT_SECONDS", "0.2")];
    let system = MonitoredSystem::start(&fast).await;
    let pool = system.database.pool().await;
    sqlx::raw_sql(
        "INSERT INTO queues (name, paused_at, reason, cancelled)
         SELECT name, now(), 'a test', 3 FROM unnest(ARRAY['index_item', 'process_transaction']) AS name;
         INSERT INTO apalis.jobs (job, id, job_type, priority, status, run_at)
         SELECT '{}', 'a' || n, 'index_item', n % 3 - 1, 'Pending',
                now() + CASE WHEN n <= 7 THEN interval '-100 seconds' ELSE interval '1 hour' END
         FROM generate_series(1, 12) AS n;
         INSERT INTO apalis.jobs (job, id, job_type, status, run_at)
         SELECT '{}', 'b' || n, 'process_transaction', 'Pending', now() - interval '7 seconds'
         FROM generate_series(1, 10050) AS n;
         INSERT INTO apalis.jobs (job, id, job_type, status, done_at)
         SELECT '{}', 'c' || n, 'fetch_prices', 'Killed', now() FROM generate_series(1, 5) AS n;
         INSERT INTO apalis.jobs (job, id, job_type, status) VALUES ('{}', 'd', 'foreign_queue', 'Killed')",
    )
    .execute(&pool)
    .await
    .expect("jobs");
    let expected = [
        ("millrace_queue_depth{queue=\"index_item\",state=\"waiting\"}", 12.0),
        ("millrace_queue_depth{queue=\"index_item\",state=\"due\"}", 7.0),
        ("millrace_queue_depth{queue=\"index_item\",state=\"running\"}", 0.0),
        // Counts stop at 10,000.
        ("millrace_queue_depth{queue=\"process_transaction\",state=\"waiting\"}", 10_000.0),
        ("millrace_dead_jobs{queue=\"fetch_prices\"}", 5.0),
        ("millrace_queue_paused{queue=\"index_item\"}", 1.0),
        ("millrace_queue_paused{queue=\"fetch_prices\"}", 0.0),
        ("millrace_jobs_cancelled_total{queue=\"process_transaction\"}", 3.0),
        ("millrace_queue_oldest_age_seconds{queue=\"reconcile_rate\"}", 0.0),
        ("millrace_workers_live", 1.0),
    ];
    eventually("both processes show the queues", SOON, async || {
        system
            .metrics()
            .await
            .iter()
            .all(|metrics| expected.iter().all(|(series, n)| value(metrics, series) == Some(*n)))
    })
    .await;
    for metrics in system.metrics().await {
        let late = value(&metrics, "millrace_queue_oldest_age_seconds{queue=\"index_item\"}").unwrap();
        assert!((100.0..160.0).contains(&late), "{late}");
        assert!(!metrics.contains("foreign_queue"), "only registered queues are labels");
        assert!(value(&metrics, "millrace_queue_measured_timestamp_seconds").unwrap() > 0.0, "{metrics}");
    }
    // The worker is stopped, so only the API can report it.
    system.worker.signal(Signal::SIGSTOP);
    eventually("the API reports no live worker", SOON, async || system.api_has_metric("millrace_workers_live 0").await)
        .await;
    system.worker.signal(Signal::SIGCONT);
    eventually("the worker is live again", SOON, async || system.api_has_metric("millrace_workers_live 1").await).await;
}

/// The first scrape after a start or a pause shows current values, not 0 or older ones.
#[tokio::test]
async fn the_first_scrape_shows_current_values() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let insert = |first: u32, last: u32| {
        let jobs = format!(
            "INSERT INTO queues (name, paused_at, reason) VALUES ('index_item', now(), 'a test')
             ON CONFLICT (name) DO NOTHING;
             INSERT INTO apalis.jobs (job, id, job_type, status)
             SELECT '{{}}', 'a' || n, 'index_item', 'Pending' FROM generate_series({first}, {last}) AS n;
             INSERT INTO apalis.jobs (job, id, job_type, status, done_at)
             SELECT '{{}}', 'b' || n, 'fetch_prices', 'Killed', now() FROM generate_series({first}, {last}) AS n"
        );
        sqlx::AssertSqlSafe(jobs)
    };
    sqlx::raw_sql(insert(1, 350)).execute(&pool).await.expect("jobs");
    let api = Api::start(&database.url, &[]).await;
    // A scrape waits for two seconds for a measurement. One that takes longer may show older values, so another is made
    // after the pause.
    let metrics = async |pause: Duration| {
        for _ in 0..10 {
            tokio::time::sleep(pause).await;
            let begun = Instant::now();
            let text = send(http_client().get(format!("{}/metrics", api.url))).await.text;
            if begun.elapsed() < Duration::from_secs(2) {
                return text;
            }
        }
        panic!("every scrape takes over two seconds");
    };
    let due = "millrace_queue_depth{queue=\"index_item\",state=\"due\"}";
    let dead = "millrace_dead_jobs{queue=\"fetch_prices\"}";
    let first = metrics(Duration::ZERO).await;
    assert_eq!((value(&first, due), value(&first, dead)), (Some(350.0), Some(350.0)), "{first}");
    sqlx::raw_sql(insert(351, 400)).execute(&pool).await.expect("more jobs");
    // Longer than a measurement is cached, and without a scrape meanwhile.
    let second = metrics(Duration::from_millis(2100)).await;
    assert_eq!((value(&second, due), value(&second, dead)), (Some(400.0), Some(400.0)), "{second}");
}

#[tokio::test]
async fn a_gauge_that_cannot_be_measured_is_absent() {
    let nowhere = "postgres://user@127.0.0.1:9/none";
    let variables = [("DATABASE_URL", nowhere), ("WORKER_HEALTH_PORT", "0"), ("LOG_FORMAT", "json")];
    let mut worker = Process::start(&["worker"], &variables);
    let line: serde_json::Value =
        serde_json::from_str(&worker.wait_for_line("health and metrics").await).expect("a JSON line");
    let url = format!("http://{}/metrics", line["address"].as_str().expect("an address"));
    let metrics = send(http_client().get(url)).await.text;
    assert!(metrics.contains("millrace_jobs_enqueued_total{"), "counters exist from the start: {metrics}");
    for gauge in [
        "queue_depth",
        "queue_oldest_age",
        "queue_paused",
        "dead_jobs",
        "workers_live",
        "workers_needed",
        "queue_measured",
        "callback_destinations",
    ] {
        assert!(!metrics.contains(&format!("\nmillrace_{gauge}")), "{gauge}: {metrics}");
    }
}

#[tokio::test]
async fn waiting_for_a_database_session_is_measured() {
    /// More than the 12 sessions that the features of a process share.
    const CALLERS: usize = 20;
    let system = MonitoredSystem::start(&[]).await;
    let pool = system.database.pool().await;
    let long_waits = async || {
        let metrics = system.metrics().await;
        let below = value(&metrics[0], "millrace_db_pool_wait_seconds_bucket{le=\"0.25\"}").expect("an edge");
        value(&metrics[0], "millrace_db_pool_wait_seconds_count").expect("a count") - below
    };
    let call_all = async || join_all((0..CALLERS).map(|_| system.list_probes())).await;
    // Opens the sessions, so that all of them soon wait for the lock below.
    call_all().await;
    // A request gives up after five seconds, and may come late: on a busy machine there are several attempts.
    eventually("all requests are served, and the waits of the others are measured", LONG, async || {
        let before = long_waits().await;
        let mut lock = pool.begin().await.expect("a transaction");
        sqlx::raw_sql("LOCK TABLE probes IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.expect("a lock");
        let begun = Instant::now();
        let release = async {
            eventually("all sessions are in use, or requests have given up", SOON, async || {
                let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                               AND application_name = 'millrace api' AND wait_event_type = 'Lock'";
                let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&pool).await.expect("a number");
                waiting == 12 || begun.elapsed() > Duration::from_secs(5)
            })
            .await;
            // The other requests wait this long for a session.
            tokio::time::sleep(Duration::from_millis(500)).await;
            lock.rollback().await.expect("a release");
        };
        let (statuses, ()) = tokio::join!(call_all(), release);
        statuses.iter().all(|status| *status == 200) && long_waits().await - before >= (CALLERS - 12) as f64
    })
    .await;
}

#[tokio::test]
async fn prometheus_scrapes_both_processes() {
    let system = MonitoredSystem::start(&[]).await;
    let Some(prometheus) = Prometheus::start(&system).await else { return };
    system.traffic(1).await;
    for job in ["api", "worker"] {
        // A process whose scrape takes too long is down for that moment.
        eventually(&format!("{job} is up"), SOON, async || {
            let up = prometheus.query(&format!("up{{job=\"{job}\"}}")).await;
            up.iter().map(|(_, value)| *value).eq([1.0])
        })
        .await;
    }
    eventually("Prometheus has the metrics of the traffic", SOON, async || {
        let done = "millrace_jobs_finished_total{job=\"worker\",queue=\"process_transaction\",outcome=\"done\"} == 1";
        let requests = "sum(http_server_request_duration_seconds_count{route=\"/v1/webhooks/transactions\"}) == 4";
        let replayed = "millrace_webhooks_accepted_total{job=\"api\",outcome=\"replayed\"} == 1";
        let mut missing = 3;
        for expression in [done, requests, replayed] {
            missing -= prometheus.query(expression).await.len();
        }
        missing == 0
    })
    .await;
}
