//! What views cost: sessions of their own, a time limit for each part of a page, and one poller for all who watch.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use sqlx::Connection;

use super::{board::Browser, in_time};
use crate::harness::{database, eventually, http::send, process::Process};

const SOON: Duration = Duration::from_secs(30);
/// The series that counts the statements of all views.
const STATEMENTS: &str = "millrace_db_statements_total{pool=\"views\"}";
/// The statements of one snapshot of the first page, and of one that reads all.
const SNAPSHOT: u64 = 2;
const FULL_SNAPSHOT: u64 = 5;
/// The least seconds from the begin of a snapshot to that of the next one, and of those that read all.
const EVERY: u64 = 2;
const FULL_EVERY: u64 = 10;

/// A tab that watches a page.
struct Tab {
    response: reqwest::Response,
    text: String,
}

impl Tab {
    async fn open(browser: &Browser, path: &str) -> Self {
        let cookie = browser.cookie.as_deref().expect("a session");
        let response = browser.system.get(path).header("cookie", cookie).send().await.expect("a response");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self { response, text: String::new() }
    }

    /// Reads up to the end of the event with this number, or a later one. Returns its number.
    async fn read_event(&mut self, number: u64) -> u64 {
        loop {
            let complete = self.text.split_inclusive("\n\n").filter(|event| event.ends_with("\n\n"));
            let ids = complete.filter_map(|event| event.strip_prefix("id: ")?.lines().next()?.parse::<u64>().ok());
            if let Some(last) = ids.last().filter(|last| *last >= number) {
                return last;
            }
            let chunk = self.response.chunk().await.expect("an open stream").expect("a stream that goes on");
            self.text += &String::from_utf8_lossy(&chunk);
        }
    }
}

/// Reads as [`Tab::read_event`] in all tabs. Returns the last number.
async fn read_event(tabs: &mut [Tab], number: u64) -> u64 {
    join_all(tabs.iter_mut().map(|tab| tab.read_event(number))).await.into_iter().max().expect("a tab")
}

#[tokio::test]
async fn a_locked_table_leaves_parts_out_and_takes_no_other_sessions() {
    let browser = Browser::logged_in().await;
    browser.insert_dead("01DEAD", "connection refused").await;
    let mut other = sqlx::PgConnection::connect(&browser.system.database.url).await.unwrap();
    let mut lock = other.begin().await.unwrap();
    sqlx::query("LOCK TABLE apalis.jobs IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();

    let pages = [
        "/board",
        "/board/queues/q",
        "/board/jobs",
        "/board/jobs?state=dead",
        "/board/jobs/01DEAD",
        "/board/dead",
        "/board/dead/selection?queue=q",
        "/board/dead/preview?action=replay&queue=q&reason=why",
        "/board/workers",
        "/board/workers/w",
        "/board/find?q=01DEAD",
    ];
    let begun = Instant::now();
    let loaded = join_all(pages.map(|path| browser.get_once(path))).await;
    // A part waits for a second at most; a page has at most two of them in a row. Without this limit, two statements
    // would wait for 10 s.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    for (path, page) in pages.iter().zip(&loaded) {
        assert_eq!(page.status, 200, "{path}: {}", page.text);
        assert!(page.text.contains("Not known now: the query takes over 1 s."), "{path}: {}", page.text);
        for empty in
            ["Healthy", "There are no", "No job matches", "has no jobs", "No worker", "Nothing has", "0 dead letters"]
        {
            assert!(!page.text.contains(empty), "{path} says {empty:?}: {}", page.text);
        }
    }
    let request = browser.system.get("/admin/queue/overview").header("x-api-key", super::board::KEY);
    send(request).await.assert_problem(503, "the overview as JSON");
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'millrace views' AND datname = current_database()";
    // The server ends a session that was given up some time later.
    eventually("views have two sessions", SOON, async || browser.system.count(sessions).await <= 2).await;
    lock.rollback().await.unwrap();
    assert!(browser.get("/board/jobs").await.text.contains("01DEAD"));
}

#[tokio::test]
async fn a_wait_of_over_five_minutes_is_no_missing_wait() {
    let browser = Browser::logged_in().await;
    browser.insert_dead("01DEAD", "connection refused").await;
    let pool = browser.system.database.pool().await;
    // A run in the last bucket of waits, then in the one before it.
    let insert =
        "INSERT INTO queue_minutes SELECT 'q', date_trunc('minute', now()), 'w', 1, 1, 1, 0, 0, 0, 0, 0, 0, 1000,
                         array_fill(0, ARRAY[14]) || 1, 1 || array_fill(0, ARRAY[14])";
    let update = "UPDATE queue_minutes SET waits = array_fill(0, ARRAY[13]) || ARRAY[1, 0]";
    for (statement, on_page, printed) in [(insert, "&#62; 5 min", "> 5 min"), (update, "≤ 5 min", "≤ 5 min")] {
        sqlx::query(statement).execute(&pool).await.unwrap();
        for path in ["/board", "/board/queues/q"] {
            let page = browser.get(path).await.text;
            assert!(page.contains(on_page), "{path} lacks {on_page:?}: {page}");
        }
        let (_, text) = in_time::run(&browser.system.database.url, &["status"]).await;
        assert!(text.contains(printed), "{text}");
    }
}

/// As when the database is distant: then all statements of a command take long.
#[tokio::test]
async fn a_slow_database_is_no_problem_of_callbacks() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let slow = "SELECT count(*) >= 2 FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock' AND query_start < now() - interval '0.7 s'";
    eventually("a slow status is read in time", Duration::from_secs(120), async || {
        let mut lock = pool.begin().await.unwrap();
        let tables = "LOCK TABLE apalis.workers, callback_destinations IN ACCESS EXCLUSIVE MODE";
        sqlx::query(tables).execute(&mut *lock).await.unwrap();
        let mut status = Process::start(&["status"], &[("DATABASE_URL", &database.url)]);
        eventually("its statements wait, or it has given up", SOON, async || {
            !status.is_running() || sqlx::query_scalar(slow).fetch_one(&pool).await.unwrap()
        })
        .await;
        lock.rollback().await.unwrap();
        let exit = status.wait_for_exit(SOON).await.code();
        exit == Some(0) && status.log().contains("Healthy")
    })
    .await;
}

#[tokio::test]
async fn twenty_tabs_cost_as_many_statements_as_one() {
    let browser = Browser::logged_in().await;
    let request = browser.system.get("/board/events");
    assert_eq!(send(request).await.status, 401, "a redirect would be followed");
    for tabs in [1, 20] {
        let mut tabs = join_all((0..tabs).map(|_| Tab::open(&browser, "/board/events"))).await;
        let mut newest = read_event(&mut tabs, 1).await;
        let (begun, before) = (Instant::now(), browser.system.metric(STATEMENTS).await);
        // A late event may be of a snapshot that was counted before: then the next one is read.
        let statements = loop {
            newest = read_event(&mut tabs, newest + 1).await;
            let statements = browser.system.metric(STATEMENTS).await - before;
            if statements >= SNAPSHOT * 2 {
                break statements;
            }
            assert!(begun.elapsed() < SOON, "{} tabs: {statements} statements up to event {newest}", tabs.len());
        };
        // Those that have begun in this time, and one that was under way.
        let seconds = begun.elapsed().as_secs();
        let (snapshots, full) = (seconds / EVERY + 2, seconds / FULL_EVERY + 2);
        let most = SNAPSHOT * snapshots + (FULL_SNAPSHOT - SNAPSHOT) * full;
        assert!(statements <= most, "{} tabs: {statements} in {seconds} s", tabs.len());
        // The destinations of callbacks are read for half a second; if that is too short, this is a problem.
        eventually("all is well on the first page", SOON, async || {
            let is_well = tabs[0].text.contains("data: <p class=\"verdict good\">");
            if !is_well {
                newest = read_event(&mut tabs, newest + 1).await;
            }
            is_well
        })
        .await;
    }
}

#[tokio::test]
async fn live_pages_show_what_has_come_since() {
    let browser = Browser::logged_in().await;
    for (page, stream, insert) in [
        (
            "/board/workers",
            "/board/events/workers",
            "INSERT INTO apalis.workers (id, worker_type, storage_name) VALUES ('new', 'millrace', 'PostgreSQL')",
        ),
        (
            "/board/replays",
            "/board/events/replays",
            "INSERT INTO replays (id, queue, rate, canary, stop_if_dead, max_jobs)
             VALUES (gen_random_uuid(), 'new', 1, 0, 0.2, 1)",
        ),
    ] {
        let shown = browser.get(page).await.text;
        let attribute = format!("data-events=\"{stream}\"");
        assert!(shown.contains(&attribute) && !shown.contains(">new</a>"), "{page}: {shown}");
        let mut tab = Tab::open(&browser, stream).await;
        let mut newest = tab.read_event(1).await;
        assert!(!tab.text.contains(">new</a>"), "{stream}: {}", tab.text);
        sqlx::query(insert).execute(&browser.system.database.pool().await).await.unwrap();
        // The next snapshots may have begun before, and a slow one has no rows.
        eventually(&format!("{stream} shows what has come"), SOON, async || {
            newest = tab.read_event(newest + 1).await;
            tab.text.contains(">new</a>")
        })
        .await;
    }
    assert!(!browser.get("/board/workers?after=a").await.text.contains("data-events"), "only the first page");
    assert_eq!(browser.get("/board/events/other").await.status, 404);
}

#[tokio::test]
async fn a_stop_ends_the_streams_at_once() {
    let mut browser = Browser::logged_in().await;
    let mut tab = Tab::open(&browser, "/board/events").await;
    tab.read_event(1).await;
    browser.system.api.process.signal(Signal::SIGTERM);
    while tab.response.chunk().await.expect("an orderly end").is_some() {}
    // Open requests would have 25 s.
    let status = browser.system.api.process.wait_for_exit(Duration::from_secs(10)).await;
    assert!(status.success());
}
