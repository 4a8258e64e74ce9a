//! Benchmark of what operators see: every page of the board and every endpoint that reads, on full tables.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use jobs::bench::{
    self,
    operators::{self, Samples, Sizes},
};

use super::{
    BenchContext, counts,
    environment::ADMIN_KEY,
    http::Connection,
    report::{Measurement, Target, percentile},
    watch,
};

/// Requests of each page after the first one.
const TRIES: usize = 20;
/// The most statements of a page.
const STATEMENTS: f64 = 5.0;
/// The most milliseconds that 19 of 20 requests take.
const LIMIT_MS: f64 = 200.0;
/// The series that counts the statements of all views.
const COUNTER: &str = "millrace_db_statements_total{pool=\"views\"} ";

/// Measures pages and endpoints, tabs that watch the first page, and the counts that the pages show.
pub(super) async fn measure(context: &BenchContext<'_>) -> Result<Vec<Measurement>> {
    let bench = context.bench();
    let counts = counts::measure(context).await?;
    operators::clear(bench).await?;
    let sizes = Sizes { finished: context.finished, waiting: context.finished / 10, dead: context.finished / 100 };
    context.print_progress(format_args!("adding {sizes:?}"));
    let begun = Instant::now();
    operators::fill(bench, sizes).await?;
    context.environment.add_due_transactions(1).await?;
    bench::analyze_and_checkpoint(bench).await?;
    let filled = begun.elapsed().as_secs_f64();
    let transaction = context.environment.app.transactions.list(None, 1, None).await?;
    let transaction = transaction.first().context("a transaction")?.transaction_id.clone();
    let paths = paths(&operators::samples(bench).await?, &transaction);

    let scans = operators::sequential_scans(bench).await?;
    let (mut api, address) = context.environment.api(3600).await?;
    let mut views = Views::open(address).await?;
    let (mut lines, mut most, mut missing) = (Vec::new(), 0.0_f64, 0);
    for (name, path) in paths {
        let visit = views.visit(&path).await.map_err(|error| anyhow!("{path}: {error}"))?;
        most = most.max(visit.statements);
        missing += visit.missing;
        let Visit { first, p50, p95, statements, .. } = visit;
        context
            .print_progress(format_args!("{name}: p95 {p95:.1} ms, first {first:.1} ms, {} incomplete", visit.missing));
        let what = format!("{name}: p95; p50 {p50:.1} ms, first {first:.1} ms, {statements} statements");
        lines.push(Measurement::new("operators", what, vec![p95], "ms").target(Target::AtMost(LIMIT_MS)));
    }
    let idle = watch::measure_idle(context, &api, address, &views.cookie).await?;
    // The sessions report their scans when they end.
    drop(views);
    api.stop().await?;
    let scans = (operators::sequential_scans(bench).await? - scans) as f64;
    let (mut api, address) = context.environment.api(3600).await?;
    let views = Views::open(address).await?;
    let drains = watch::measure_drain(context, address, &views.cookie).await?;
    drop(views);
    api.stop().await?;
    let jobs = sizes.finished + sizes.waiting + sizes.dead;
    operators::clear(bench).await?;
    let line = |what: String, value, unit| Measurement::new("operators", what, vec![value], unit);
    lines.extend([
        line("the most statements of one of these".into(), most, "").target(Target::AtMost(STATEMENTS)),
        line("requests with a part that was not known in time".into(), missing as f64, "").target(Target::AtMost(0.0)),
        line("sequential scans of jobs by all of these".into(), scans, "").target(Target::AtMost(0.0)),
        line(format!("adding these {jobs} jobs"), filled, "s"),
    ]);
    lines.extend([idle, drains, counts].concat());
    Ok(lines)
}

/// The pages of the board and the endpoints that read, each with a name.
fn paths(samples: &Samples, transaction: &str) -> Vec<(String, String)> {
    let Samples { waiting, running, dead, done, group, worker, replay } = samples;
    let named = [
        ("/board/jobs/WAITING", format!("/board/jobs/{waiting}")),
        ("/board/jobs/RUNNING", format!("/board/jobs/{running}")),
        ("/board/jobs/DEAD", format!("/board/jobs/{dead}")),
        ("/board/jobs/DONE", format!("/board/jobs/{done}")),
        ("/board/dead/selection by group", format!("/board/dead/selection?queue=process_transaction&group={group}")),
        (
            "/board/dead/selection by error",
            format!("/board/dead/selection?queue=process_transaction&group={group}&error=refused"),
        ),
        (
            "/board/dead/preview",
            format!("/board/dead/preview?action=replay&queue=process_transaction&group={group}&reason=why"),
        ),
        ("/board/replays/ID", format!("/board/replays/{replay}")),
        ("/board/workers/ID", format!("/board/workers/{worker}")),
        ("/board/find?q=", format!("/board/find?q={waiting}-")),
        ("/board/t/ID", format!("/board/t/{transaction}")),
        ("/admin/queue/jobs/ID", format!("/admin/queue/jobs/{waiting}")),
        ("/admin/queue/jobs/ID/why", format!("/admin/queue/jobs/{waiting}/why")),
        ("/admin/queue/replays/ID", format!("/admin/queue/replays/{replay}")),
        ("/admin/queue/workers/ID", format!("/admin/queue/workers/{worker}")),
        ("/admin/queue/find", format!("/admin/queue/find?q={transaction}")),
        ("/v1/transactions/ID/timeline", format!("/v1/transactions/{transaction}/timeline")),
    ];
    const FIXED: [&str; 26] = [
        "/board",
        "/board/queues/process_transaction",
        "/board/jobs",
        "/board/jobs?state=running",
        "/board/jobs?state=waiting",
        "/board/jobs?state=dead",
        "/board/jobs?state=cancelled",
        "/board/jobs?state=done",
        "/board/jobs?queue=reconcile_rate",
        "/board/jobs?queue=unknown",
        "/board/jobs?state=dead&error=nothing",
        "/board/dead",
        "/board/dead?queue=index_item",
        "/board/replays",
        "/board/workers",
        "/board/callbacks",
        "/board/audit",
        "/board/audit?target=process_transaction",
        "/admin/queue/overview",
        "/admin/queue/queues",
        "/admin/queue/queues/process_transaction",
        "/admin/queue/jobs",
        "/admin/queue/dead",
        "/admin/queue/workers",
        "/admin/queue/actions",
        "/admin/queue/callbacks",
    ];
    let fixed = FIXED.iter().map(|path| ((*path).to_owned(), (*path).to_owned()));
    fixed.chain(named.map(|(name, path)| (name.to_owned(), path))).collect()
}

/// What one page takes.
struct Visit {
    /// Milliseconds of the first request.
    first: f64,
    p50: f64,
    p95: f64,
    /// Statements of one request.
    statements: f64,
    /// Requests after the first one with a part that was not known in time.
    missing: usize,
}

/// A logged-in browser.
struct Views {
    connection: Connection,
    cookie: String,
}

impl Views {
    async fn open(address: SocketAddr) -> Result<Self> {
        let mut connection = Connection::open(address).await?;
        let form = format!("name=bench&key={}", ADMIN_KEY.replace(' ', "+"));
        let login = connection.post("/board/login", "application/x-www-form-urlencoded", &form).await?;
        ensure!(login.status == 303, "the login failed: {}", login.head);
        let cookie = login.header("set-cookie").and_then(|cookie| cookie.split(';').next()).context("a cookie")?;
        let cookie = cookie.to_owned();
        connection.add_header("Cookie", &cookie);
        connection.add_header("X-API-Key", ADMIN_KEY);
        Ok(Self { connection, cookie })
    }

    /// Requests a path once, and then [`TRIES`] times more.
    async fn visit(&mut self, path: &str) -> Result<Visit> {
        let (first, _) = self.get(path).await?;
        let before = self.statements().await?;
        let (mut times, mut missing) = (Vec::new(), 0);
        for _ in 0..TRIES {
            let (time, is_complete) = self.get(path).await?;
            times.push(time);
            missing += usize::from(!is_complete);
        }
        let statements = (self.statements().await? - before) / TRIES as f64;
        times.sort_unstable();
        let (p50, p95) = (percentile(&times, 0.5), percentile(&times, 0.95));
        Ok(Visit { first: first.as_secs_f64() * 1e3, p50, p95, statements, missing })
    }

    /// Returns the time, and whether all parts of the page were known in time.
    async fn get(&mut self, path: &str) -> Result<(Duration, bool)> {
        let response = self.connection.get(path).await?;
        // An endpoint has no parts: it returns 503 instead.
        let is_complete = response.status != 503 && !response.body.contains("Not known now");
        ensure!(response.status == 200 || !is_complete, "{}: {}", response.status, response.body);
        Ok((response.time, is_complete))
    }

    async fn statements(&mut self) -> Result<f64> {
        let metrics = self.connection.get("/metrics").await?.body;
        let value = metrics.lines().find_map(|line| line.strip_prefix(COUNTER));
        value.and_then(|value| value.parse().ok()).context("no count of statements in /metrics")
    }
}
