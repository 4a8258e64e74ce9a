//! Tasks: jobs that report each of their runs to the recorder, which decides when a run goes on and how it ends. Limited jobs
//! report when their work begins and ends.

use std::{fmt::Display, time::Duration};

use anyhow::Result;
use queue::{Failure, Job, Outcome, Policy, Run, retry::Backoff};
use runtime::clients::http;
use serde::{Deserialize, Serialize};

/// How long a run may last. The recorder may hold it while a fault goes on.
const DEADLINE: Duration = Duration::from_secs(60);
/// The response of the recorder to the start of a run that must fail.
pub(crate) const FAIL: &str = "fail";

/// Where tasks report.
#[derive(Clone)]
pub(crate) struct Reports {
    http: reqwest::Client,
    url: String,
}

impl Reports {
    /// Reports to the recorder at this URL.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub(crate) fn to(url: &str) -> Result<Self> {
        Ok(Self { http: http::client(|limits| limits.no_proxy().timeout(DEADLINE))?, url: url.to_owned() })
    }

    async fn send(&self, what: &str, run: &Run, more: impl Display) -> Result<String, Failure> {
        let report = self.http.post(format!("{}/{what}", self.url)).body(format!("{} {} {more}", run.id, run.token));
        let response = report.send().await.and_then(reqwest::Response::error_for_status).map_err(Failure::new)?;
        response.text().await.map_err(Failure::new)
    }
}

/// A task fails once for each of these pauses, and asks for it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Task {
    pauses_ms: Vec<u64>,
}

impl Job for Task {
    const NAME: &'static str = "prove_task";
    type Context = Reports;

    fn policy(_: &Reports) -> Policy {
        // The failures of a group of tasks are spread, so that each worker gets some of the next runs.
        let backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_millis(200) };
        Policy { attempts: 1000, backoff, deadline: DEADLINE, concurrency: 100, ..Policy::default() }
    }

    async fn run(self, reports: Reports, run: Run) -> Result<Outcome, Failure> {
        let order = reports.send("started", &run, 0).await?;
        let pause_ms = self.pauses_ms.get(usize::try_from(run.failures).unwrap_or(usize::MAX)).copied();
        if pause_ms.is_some() || order == FAIL {
            let pause_ms = pause_ms.unwrap_or_default();
            reports.send("failed", &run, pause_ms).await?;
            return Err(Failure::new("on purpose").not_before(Duration::from_millis(pause_ms)));
        }
        reports.send("ended", &run, 0).await?;
        Ok(Outcome::Done)
    }
}

/// How long a limited job works: long enough that a kill hits it.
const WORK: Duration = Duration::from_millis(50);

/// A job of a key of which one may run at once.
#[derive(Serialize, Deserialize)]
pub(crate) struct Limited {
    pub(crate) key: String,
}

impl Job for Limited {
    const NAME: &'static str = "prove_limited";
    type Context = Reports;

    fn policy(_: &Reports) -> Policy {
        let backoff = Backoff { base: Duration::from_millis(50), cap: Duration::from_millis(500) };
        Policy { attempts: 1000, backoff, deadline: DEADLINE, concurrency: 32, per_key: Some(1), ..Policy::default() }
    }

    async fn run(self, reports: Reports, run: Run) -> Result<Outcome, Failure> {
        let work = format!("{} {}", std::process::id(), self.key);
        reports.send("entered", &run, &work).await?;
        tokio::time::sleep(WORK).await;
        reports.send("left", &run, &work).await?;
        Ok(Outcome::Done)
    }
}
