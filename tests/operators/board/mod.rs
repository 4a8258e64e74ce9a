//! The board, as a browser uses it: login, pages, forms and their limits. Cookies are passed by hand.

mod actions;

use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder, redirect::Policy};
use serde_json::Value;

use super::in_time;
use crate::harness::{
    eventually,
    http::{HttpResponse, send},
    process::{self, start_worker},
    system::System,
};

const SOON: Duration = Duration::from_secs(30);
pub(super) const KEY: &str = "the-admin-key-of-this-test";
/// An error that a page must not show as HTML.
const SCRIPT: &str = "<script>alert('x')</script> & \"quotes\"";

/// A system with a board, and a browser that follows no redirects.
pub(super) struct Browser {
    pub(super) system: System,
    pub(super) cookie: Option<String>,
    csrf: String,
}

impl Browser {
    async fn start(variables: &[(&str, &str)]) -> Self {
        let mut system = System::start(&[&[("ADMIN_API_KEY", KEY)], variables].concat()).await;
        process::install_tls();
        system.client = reqwest::Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
        Self { system, cookie: None, csrf: String::new() }
    }

    /// A browser that is logged in as ada.
    pub(super) async fn logged_in() -> Self {
        let mut browser = Self::start(&[]).await;
        browser.log_in(KEY).await;
        browser
    }

    async fn log_in(&mut self, key: &str) {
        let response = self.post("/board/login", &[("name", "ada"), ("key", key)]).await;
        assert_eq!(response.status, 303, "{response:?}");
        self.cookie = response.header("set-cookie").split(';').next().map(str::to_owned);
        let page = self.get("/board").await;
        assert_eq!(page.status, 200, "{page:?}");
        self.csrf = page.text.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    }

    /// A page with all its parts, of which none has taken too long.
    pub(super) async fn get(&self, path: &str) -> HttpResponse {
        in_time::view(self.request(Method::GET, path)).await
    }

    /// A page as it is, perhaps without some parts.
    pub(super) async fn get_once(&self, path: &str) -> HttpResponse {
        send(self.request(Method::GET, path)).await
    }

    /// Sends a form as it is.
    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> HttpResponse {
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = self.request(Method::POST, path).header("content-type", "application/x-www-form-urlencoded");
        send(request.body(form)).await
    }

    /// Sends a form with the token of the session and a reason.
    async fn act(&self, path: &str, fields: &[(&str, &str)]) -> HttpResponse {
        let common = [("csrf", self.csrf.as_str()), ("reason", "the processor is down")];
        self.post(path, &[&common, fields].concat()).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.system.request(method, path);
        match &self.cookie {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        }
    }

    async fn execute(&self, statement: &str) {
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        sqlx::query(statement).execute(&self.system.database.pool().await).await.unwrap();
    }

    /// Inserts a dead letter of the queue `q`, whose only run ended with this error.
    pub(super) async fn insert_dead(&self, id: &str, error: &str) {
        let errors = serde_json::json!([{"at": "2026-11-28T12:00:00Z", "run": 1, "worker": "w", "error": error}]);
        let insert = "INSERT INTO apalis.jobs (id, job_type, job, status, run_at, done_at, attempts, failures, errors, error_group)
                      VALUES ($1, 'q', convert_to('{\"secret\":\"of the payload\"}', 'UTF8'), 'Killed', now(), now(), 1, 1, $2, 'group')";
        let query = sqlx::query(insert).bind(id).bind(errors);
        query.execute(&self.system.database.pool().await).await.unwrap();
    }

    /// The recorded actions: actor, interface, action, target and reason.
    async fn audit(&self) -> Vec<(String, String, String, String, String)> {
        let query = "SELECT actor, via, action, target, reason FROM operator_actions ORDER BY id";
        sqlx::query_as(query).fetch_all(&self.system.database.pool().await).await.unwrap()
    }
}

fn assert_page(response: &HttpResponse, status: u16, case: &str) {
    assert_eq!(response.status, status, "{case}: {response:?}");
    assert_eq!(response.header("content-type"), "text/html; charset=utf-8", "{case}");
    assert!(response.text.starts_with("<!doctype html>") && response.text.contains("<title>"), "{case}");
    assert!(response.text.len() < 100_000, "{case}: {} bytes", response.text.len());
    let policy = response.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{case}: {policy}");
    for (name, value) in
        [("cache-control", "no-store"), ("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer")]
    {
        assert_eq!(response.header(name), value, "{case}");
    }
    for inline in ["<script>", " style=\"", "javascript:", " onclick="] {
        assert!(!response.text.contains(inline), "{case}: {inline}");
    }
}

#[tokio::test]
async fn a_login_takes_the_admin_key_and_a_name() {
    let mut browser = Browser::start(&[]).await;
    assert_page(&browser.get("/board/login").await, 200, "the form");
    for (key, name, status) in
        [("", "ada", 403), ("wrong", "ada", 403), ("your-secret-api-key-here", "ada", 403), (KEY, "", 422)]
    {
        let response = browser.post("/board/login", &[("name", name), ("key", key)]).await;
        assert_page(&response, status, key);
        assert_eq!(response.header("set-cookie"), "", "{key}");
        assert!(key.is_empty() || !response.text.contains(key), "the page repeats the key");
    }
    let fields = [("name", "ada"), ("key", KEY), ("next", "/board/jobs?state=dead")];
    let response = browser.post("/board/login", &fields).await;
    assert_eq!((response.status, response.header("location")), (303, "/board/jobs?state=dead"));
    let cookie = response.header("set-cookie");
    assert!(cookie.contains("; Path=/board; ") && cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
    let fields = [("name", "ada"), ("key", KEY), ("next", "https://evil.example/board")];
    assert_eq!(browser.post("/board/login", &fields).await.header("location"), "/board", "no other site");

    browser.log_in(KEY).await;
    let response = browser.act("/board/logout", &[]).await;
    assert_eq!((response.status, response.header("location")), (303, "/board/login"));
    assert!(response.header("set-cookie").contains("Max-Age=0"));
}

#[tokio::test]
async fn wrong_keys_are_limited_by_address() {
    let browser = Browser::start(&[]).await;
    let log_in = async |key: &'static str| browser.post("/board/login", &[("name", "ada"), ("key", key)]).await;
    let (begun, mut wrong, mut right) = (Instant::now(), 0, 0);
    // A bucket of ten attempts, refilled by one every six seconds.
    let refilled = || begun.elapsed().as_secs() / 6;
    let response = loop {
        let guess = log_in("guess").await;
        if guess.status == 403 {
            wrong += 1;
            assert!(wrong <= 10 + refilled(), "{wrong} guesses in {:?}", begun.elapsed());
            continue;
        }
        assert_eq!(guess.status, 429, "{guess:?}");
        // The right key is refused as well, unless the bucket has got another attempt meanwhile.
        let response = log_in(KEY).await;
        if response.status != 303 {
            break response;
        }
        right += 1;
        assert!(right <= refilled(), "{right} logins beyond the limit in {:?}", begun.elapsed());
    };
    assert!(wrong >= 10, "{wrong}");
    assert_page(&response, 429, "an attempt beyond the limit");
    assert!(!response.header("retry-after").is_empty());
}

#[tokio::test]
async fn without_a_session_every_page_leads_to_the_login() {
    let mut browser = Browser::start(&[]).await;
    let response = browser.get("/board/jobs?state=dead").await;
    assert_eq!(
        (response.status, response.header("location")),
        (303, "/board/login?next=%2Fboard%2Fjobs%3Fstate%3Ddead")
    );
    for path in ["/board", "/board/", "/board/queues/q", "/board/unknown", "/board/t/x"] {
        assert_eq!(browser.get(path).await.status, 303, "{path}");
    }
    assert_eq!(browser.post("/board/queues/q/pause", &[("reason", "x")]).await.status, 303);
    browser.cookie = Some("millrace_board=e30.AAAA".into());
    assert_eq!(browser.get("/board").await.status, 303, "a forged cookie");
    for (path, kind) in [
        ("/board/style.css", "text/css; charset=utf-8"),
        ("/board/board.js", "text/javascript; charset=utf-8"),
        ("/board/icon.svg", "image/svg+xml"),
    ] {
        let file = browser.get(path).await;
        assert_eq!((file.status, file.header("content-type")), (200, kind));
    }
    assert_eq!(browser.audit().await, []);
}

#[tokio::test]
async fn a_form_needs_the_token_of_its_session() {
    let browser = Browser::logged_in().await;
    for csrf in ["", "x"] {
        let response =
            browser.post("/board/queues/process_transaction/pause", &[("csrf", csrf), ("reason", "x")]).await;
        assert_page(&response, 403, csrf);
    }
    assert_eq!(browser.audit().await, []);
}

#[tokio::test]
async fn every_page_is_complete_and_escaped() {
    let browser = Browser::logged_in().await;
    let worker = start_worker(&browser.system.database.url, &[]).await;
    browser.insert_dead("01DEAD", SCRIPT).await;
    browser.system.send_webhook("<b>tx</b>").await;
    let (pool, mut worker_id) = (browser.system.database.pool().await, None::<String>);
    // The thread of the heartbeat writes the row, perhaps after the worker's log line.
    eventually("the worker has a row", SOON, async || {
        let query = sqlx::query_scalar("SELECT id FROM apalis.workers LIMIT 1");
        worker_id = query.fetch_optional(&pool).await.unwrap();
        worker_id.is_some()
    })
    .await;
    let worker_id = worker_id.unwrap();
    let started = browser.act("/board/dead/replay", &[("action", "replay"), ("queue", "none"), ("limit", "5")]).await;
    let replay = started.header("location").split('?').next().unwrap().to_owned();
    let worker_page = format!("/board/workers/{worker_id}");
    for (path, text) in [
        ("/board", "Rates, waits and dead letters are as of <time"),
        ("/board/queues/process_transaction", "Pause process_transaction"),
        ("/board/queues/process_transaction", "</span> it is not paused"),
        ("/board", "<a href=\"/board/jobs?state=waiting&#38;queue=process_transaction\">"),
        ("/board/queues/%3Cb%3E", "This queue has no jobs"),
        ("/board/jobs", "01DEAD"),
        ("/board/jobs?state=dead&queue=q&error=alert", "01DEAD"),
        ("/board/jobs?state=running&queue=unknown", "No job matches."),
        ("/board/jobs?group=group&attempts=1&older_than=0s&worker=%3Cb%3E", "No job matches."),
        ("/board/jobs?state=waiting&queue=q&key=%3Cb%3E", "Preview the cancellation"),
        ("/board/jobs/cancel?state=waiting&queue=q&error=%3Cb%3E&reason=x", "Cancels 0 of 0 jobs."),
        ("/board/jobs/01DEAD", "millrace jobs replay 01DEAD"),
        ("/board/dead", "100 %"),
        ("/board/dead/selection?queue=q&group=group", "1 dead letters match."),
        ("/board/dead/preview?action=replay&queue=q&rate=2&limit=9&reason=%3Cb%3E", "Replay 1 jobs"),
        ("/board/dead/preview?action=discard&queue=q&reason=old", "Discard 1 jobs"),
        ("/board/replays", "/board/replays/"),
        (&replay, "<progress"),
        ("/board/workers", &worker_id),
        (&worker_page, "Drain this worker"),
        ("/board/schedules", "Skip the next fire"),
        ("/board/schedules/daily_prices", "Fires of daily_prices"),
        ("/board/callbacks", "There are no destinations."),
        ("/board/audit", "replay"),
        ("/board/database", "autovacuum-off"),
        ("/board/scale", "workers needed,"),
        ("/board/queues/process_transaction/trends?window=24h", "<svg class=\"chart\""),
        ("/board/queues/%3Cb%3E/trends", "Nothing happened in this queue"),
        ("/board/find", "Type an id"),
        ("/board/find?q=%3Cscript%3E", "Nothing has the id"),
        ("/board/t/%3Cb%3Etx%3C%2Fb%3E", "accepted"),
    ] {
        let page = browser.get(path).await;
        assert_page(&page, 200, path);
        assert!(page.text.contains(text), "{path} lacks {text:?}: {}", page.text);
        assert!(page.text.contains("The same as: <code>millrace "), "{path}");
        assert!(!page.text.contains("<b>") && !page.text.contains("of the payload"), "{path}: {}", page.text);
    }
    assert!(browser.get("/board/jobs/01DEAD").await.text.contains("&#60;script&#62;alert"));
    let found = browser.get("/board/find?q=01DEAD").await;
    assert_eq!((found.status, found.header("location")), (303, "/board/jobs/01DEAD"), "a single result is opened");
    drop(worker);
}

#[tokio::test]
async fn the_page_of_a_transaction_has_the_number_of_all_its_conflicts() {
    let browser = Browser::logged_in().await;
    browser.system.send_webhook("t").await;
    let page = browser.get("/board/t/t").await;
    assert!(!page.text.contains("Conflicts"), "{}", page.text);
    browser.execute("INSERT INTO webhook_conflict_totals (transaction_id, times) VALUES ('t', 1307)").await;
    let payload = "INSERT INTO webhook_conflicts (transaction_id, payload, digest, fields)
                   VALUES ('t', '{}', '\\x00', '{amount}')";
    browser.execute(payload).await;
    let page = browser.get("/board/t/t").await;
    assert!(page.text.contains("<dt>Conflicts</dt><dd>1,307; the first 20 different"), "{}", page.text);
}

#[tokio::test]
async fn a_viewer_looks_and_cannot_act() {
    let mut browser = Browser::start(&[("VIEWER_API_KEY", "the-viewer-key-of-this-test")]).await;
    browser.log_in("the-viewer-key-of-this-test").await;
    browser.insert_dead("01DEAD", "connection refused").await;
    for path in ["/board", "/board/queues/process_transaction", "/board/jobs/01DEAD", "/board/dead/selection?queue=q"] {
        let page = browser.get(path).await;
        assert_page(&page, 200, path);
        assert_eq!(page.text.matches("<form").count(), 3, "{path}: search, logout and the help only: {}", page.text);
    }
    for path in [
        "/board/queues/process_transaction/pause",
        "/board/jobs/01DEAD/replay",
        "/board/jobs/01DEAD/payload",
        "/board/dead/discard",
    ] {
        assert_page(&browser.act(path, &[("queue", "q"), ("action", "discard")]).await, 403, path);
    }
    assert_eq!(browser.audit().await, []);
    assert_eq!(browser.act("/board/logout", &[]).await.status, 303);
}

#[tokio::test]
async fn an_error_has_a_page() {
    let browser = Browser::logged_in().await;
    for (path, status, text) in [
        ("/board/unknown", 404, "The board has no such page."),
        ("/board/jobs/unknown%3Cb%3E", 404, "There is no job"),
        ("/board/t/unknown", 404, "There is no transaction"),
        ("/board/replays/x", 404, "There is no replay"),
        ("/board/workers/x", 404, "There is no worker"),
        ("/board/schedules/x", 404, "There is no schedule"),
        ("/board/schedules/daily_prices?before=x", 422, "before: must be a time such as"),
        ("/board/replays?before=x", 422, "before: must be the id of a replay"),
        ("/board/jobs?state=tired", 422, "state: must be waiting, running, done, dead or cancelled"),
        ("/board/jobs?older_than=1w", 422, "older_than: must be a duration such as 30m, 2h or 1d"),
        ("/board/jobs/cancel?state=dead&queue=q&reason=x", 422, "state: must be waiting or running"),
        ("/board/dead/preview?action=replay&queue=q&rate=0&reason=x", 422, "rate: must be a number from 0.01 to 10000"),
        ("/board/dead/preview?action=replay&queue=q", 422, "reason: must not be empty"),
        ("/board/audit?before=x", 422, "before: must be a number"),
    ] {
        let page = browser.get(path).await;
        assert_page(&page, status, path);
        assert!(page.text.contains(text) && !page.text.contains("<b>"), "{path}: {}", page.text);
    }
    let queues = browser.get("/board/queues").await;
    assert_eq!((queues.status, queues.header("location")), (303, "/board"), "the first page lists them");
    let page = send(browser.request(Method::PUT, "/board")).await;
    assert_page(&page, 405, "PUT");
    let page = browser.post("/board/queues/process_transaction/pause", &[("csrf", &browser.csrf)]).await;
    assert_page(&page, 422, "no reason");
    assert!(page.text.contains("reason: must not be empty"), "{}", page.text);
    let page = browser.act("/board/queues/process_transaction/pause", &[("until", "soon")]).await;
    assert!(page.status == 422 && page.text.contains("until: must be a time such as"), "{}", page.text);
    assert_page(&browser.act("/board/queues/unknown/pause", &[]).await, 404, "an unknown queue");
    assert_page(&browser.act("/board/queues/process_transaction/resume", &[]).await, 409, "not paused");
}

#[tokio::test]
async fn a_part_that_cannot_be_read_does_not_take_its_page_down() {
    let browser = Browser::logged_in().await;
    browser.execute("ALTER TABLE operator_actions RENAME TO hidden_actions").await;
    let page = browser.get("/board/queues/process_transaction").await;
    assert_page(&page, 200, "without its history");
    assert!(page.text.contains("Not known now") && page.text.contains("Pause process_transaction"), "{}", page.text);
    assert_page(&browser.get("/board/audit").await, 200, "without its list");
}

#[tokio::test]
async fn the_board_can_be_switched_off_and_is_no_part_of_the_api() {
    let browser = Browser::start(&[("BOARD", "off")]).await;
    for path in ["/board", "/board/login", "/board/style.css"] {
        browser.get(path).await.assert_problem(404, path);
    }
    let browser = Browser::start(&[("CORS_ORIGINS", "https://app.example.com")]).await;
    let request = browser.system.get("/board/login").header("origin", "https://app.example.com");
    let response = send(request).await;
    assert_page(&response, 200, "another site");
    assert_eq!(response.header("access-control-allow-origin"), "");
    let document: Value = browser.get("/openapi.json").await.json();
    assert!(document["paths"].as_object().unwrap().keys().all(|path| !path.starts_with("/board")));
    browser.get("/boarding").await.assert_problem(404, "another path");
}
