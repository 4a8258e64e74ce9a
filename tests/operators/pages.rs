//! Lists of replays, fires, workers and actions have pages in every interface: together they have each entry once, in order.

use std::collections::HashSet;

use serde_json::Value;

use super::{
    board::{Browser, KEY},
    in_time,
};
use crate::harness::http::send;

/// More entries than a page of the board has.
const COUNT: usize = 53;

/// A system with replays, fires of two schedules at the same times, and workers.
async fn filled() -> Browser {
    let browser = Browser::logged_in().await;
    let pool = browser.system.database.pool().await;
    for insert in [
        "INSERT INTO replays (id, queue, rate, canary, stop_if_dead, max_jobs, state)
         SELECT lpad(to_hex(n), 32, '0')::uuid, 'q', 20, 0, 0.2, 500, 'done' FROM generate_series(1, 53) AS n",
        "INSERT INTO schedules (name, cron, catch_up)
         VALUES ('another', '0 0 * * * *', 'latest'), ('daily_prices', '0 15 0 * * *', 'latest')",
        "INSERT INTO schedule_fires (schedule, fire_time, kind)
         SELECT name, date_trunc('hour', now()) - make_interval(hours => n) - interval '1 microsecond', 'on_time'
         FROM schedules, generate_series(1, 53) AS n",
        // Every tenth one is dead, and the last one has another release.
        "INSERT INTO apalis.workers (id, worker_type, storage_name, lease, last_seen, started_at, status)
         SELECT 'host-' || lpad(n::text, 2, '0'), 'millrace', 'PostgreSQL', interval '1 hour',
                now() - make_interval(hours => CASE WHEN n % 10 = 0 THEN 2 ELSE 0 END), now() - interval '3 hours',
                jsonb_build_object('host', 'host', 'pid', n, 'version', CASE n WHEN 53 THEN '1.1' ELSE '1.0' END,
                                   'listening', true, 'draining', false, 'queues', jsonb_build_object())
         FROM generate_series(1, 53) AS n",
    ] {
        sqlx::query(insert).execute(&pool).await.unwrap_or_else(|error| panic!("{insert}: {error}"));
    }
    browser
}

/// Follows the `Link` headers of a list to its last page. Returns the entries of each page.
async fn over_http(browser: &Browser, first: &str) -> Vec<Vec<Value>> {
    let (mut path, mut pages) = (first.to_owned(), Vec::new());
    loop {
        let response = in_time::view(browser.system.get(&path).header("x-api-key", KEY)).await;
        assert_eq!(response.status, 200, "{path}: {response:?}");
        pages.push(response.json().as_array().cloned().expect("a bare array"));
        assert!(pages.len() < 20, "{path}");
        match response.header("link").split_once(">; rel=\"next\"") {
            Some((next, _)) => path = next.trim_start_matches('<').to_owned(),
            None => return pages,
        }
    }
}

/// Follows the notes of a command to its last page: each names the option for the next one.
async fn by_command(browser: &Browser, command: &[&str], option: &str) -> Vec<Vec<Value>> {
    let (mut position, mut pages) = (None::<String>, Vec::new());
    loop {
        let mut arguments = [command, &["--json"]].concat();
        arguments.extend(position.iter().flat_map(|position| [option, position]));
        let (status, log) = in_time::run(&browser.system.database.url, &arguments).await;
        assert_eq!(status, Some(0), "{arguments:?}: {log}");
        let (notes, json): (Vec<&str>, Vec<&str>) = log.lines().partition(|line| line.starts_with("note: "));
        let page: Value = serde_json::from_str(&json.concat()).unwrap_or_else(|error| panic!("{error}: {log}"));
        pages.push(page.as_array().cloned().expect("an array"));
        assert!(pages.len() < 20, "{log}");
        let Some(note) = notes.first() else { return pages };
        let (_, next) = note.split_once(&format!(" add {option} ")).unwrap_or_else(|| panic!("{note}"));
        position = Some(next.to_owned());
    }
}

/// Follows the links of the board to the last page. Returns the number of rows of each page.
async fn on_the_board(browser: &Browser, first: &str) -> Vec<usize> {
    let (mut path, mut rows) = (first.to_owned(), Vec::new());
    loop {
        let page = browser.get(&path).await;
        assert_eq!(page.status, 200, "{path}: {}", page.text);
        assert!(page.text.len() < 100_000, "{path}: {} bytes", page.text.len());
        assert!(rows.is_empty() || page.text.contains(&format!("<a href=\"{first}\">«")), "a way back: {}", page.text);
        rows.push(page.text.matches("<tr data-row>").count());
        assert!(rows.len() < 10, "{path}");
        let Some((before, _)) = page.text.split_once("\" rel=\"next\">") else { return rows };
        path = before.rsplit("href=\"").next().expect("a link").replace("&#38;", "&");
    }
}

/// The values of a field of all entries.
fn values<'p>(pages: &'p [Vec<Value>], field: &str) -> Vec<&'p str> {
    pages.iter().flatten().map(|entry| entry[field].as_str().expect("a text")).collect()
}

fn lengths(pages: &[Vec<Value>]) -> Vec<usize> {
    pages.iter().map(Vec::len).collect()
}

#[tokio::test]
async fn replays_have_pages() {
    let browser = filled().await;
    let ids: Vec<String> = (1..=COUNT).rev().map(|n| uuid::Uuid::from_u128(n as u128).to_string()).collect();
    let expected: Vec<&str> = ids.iter().map(String::as_str).collect();
    let pages = over_http(&browser, "/admin/queue/replays").await;
    assert_eq!((lengths(&pages), values(&pages, "id")), (vec![20, 20, 13], expected.clone()));
    assert_eq!(lengths(&over_http(&browser, "/admin/queue/replays?limit=53").await), [53], "no empty page follows");
    let pages = by_command(&browser, &["replays", "--limit", "40"], "--before").await;
    assert_eq!((lengths(&pages), values(&pages, "id")), (vec![40, 13], expected));
    assert_eq!(on_the_board(&browser, "/board/replays").await, [50, 3]);
}

#[tokio::test]
async fn fires_have_pages() {
    let browser = filled().await;
    let pages = over_http(&browser, "/admin/queue/schedules/daily_prices/fires").await;
    let times = values(&pages, "fire_time");
    assert_eq!((lengths(&pages), times.iter().collect::<HashSet<_>>().len()), (vec![20, 20, 13], COUNT));
    // All of these times have the same form, in the same order as the times.
    assert!(times.is_sorted_by(|one, next| one > next), "newest first: {times:?}");
    let one = by_command(&browser, &["schedules", "fires", "daily_prices", "--limit", "40"], "--before").await;
    assert_eq!((lengths(&one), values(&one, "fire_time")), (vec![40, 13], times.clone()));
    // Each page of nine ends between the two schedules of a time, or after both.
    let all = by_command(&browser, &["schedules", "fires", "--limit", "9"], "--before").await;
    let fires: Vec<_> = values(&all, "fire_time").into_iter().zip(values(&all, "schedule")).collect();
    let expected: Vec<_> = times.iter().flat_map(|time| [(*time, "another"), (*time, "daily_prices")]).collect();
    assert_eq!(fires, expected);
    assert_eq!(on_the_board(&browser, "/board/schedules/daily_prices").await, [50, 3]);
    let list = browser.get("/board/schedules").await.text;
    assert!(list.contains("<a href=\"/board/schedules/daily_prices\">All fires</a>"), "{list}");
}

#[tokio::test]
async fn workers_have_pages() {
    let browser = filled().await;
    let expected: HashSet<String> = (1..=COUNT).map(|n| format!("host-{n:02}")).collect();
    let whole = over_http(&browser, "/admin/queue/workers").await;
    assert_eq!(lengths(&whole), [COUNT], "a client that follows no link gets as many as before there were pages");
    let pages = over_http(&browser, "/admin/queue/workers?limit=20").await;
    let printed = by_command(&browser, &["workers", "--limit", "20"], "--after").await;
    for pages in [&pages, &printed] {
        assert_eq!(lengths(pages), [20, 20, 13]);
        let ids = values(pages, "id");
        assert_eq!((ids.len(), ids.into_iter().map(str::to_owned).collect::<HashSet<_>>()), (COUNT, expected.clone()));
        for page in pages {
            assert!(page.is_sorted_by_key(|worker| worker["live"] != true), "live ones first: {page:?}");
        }
    }
    assert_eq!(on_the_board(&browser, "/board/workers").await, [50, 3]);
    for path in ["/board/workers", "/board/workers?after=host-50"] {
        let page = browser.get(path).await.text;
        assert!(page.contains("Mixed releases: 1.0, 1.1"), "the release of another page counts: {path}: {page}");
    }
}

#[tokio::test]
async fn actions_have_pages() {
    let browser = Browser::logged_in().await;
    let pool = browser.system.database.pool().await;
    let insert = "INSERT INTO operator_actions (actor, via, action, target, reason, count)
                  SELECT 'ada', 'cli', 'pause', 'q', 'n ' || n, 1 FROM generate_series(1, 100) AS n";
    sqlx::query(insert).execute(&pool).await.unwrap();
    let expected: Vec<String> = (1..=100).rev().map(|n| format!("n {n}")).collect();
    let over_http = over_http(&browser, "/admin/queue/actions?target=q&limit=50").await;
    let printed = by_command(&browser, &["audit", "--target", "q", "--limit", "50"], "--before").await;
    for pages in [over_http, printed] {
        assert_eq!(
            (lengths(&pages), values(&pages, "reason")),
            (vec![50, 50], expected.iter().map(|s| &**s).collect())
        );
    }
    assert_eq!(on_the_board(&browser, "/board/audit?target=q").await, [50, 50]);
}

#[tokio::test]
async fn a_wrong_position_is_refused() {
    let browser = Browser::logged_in().await;
    for path in [
        "/admin/queue/replays?before=x",
        "/admin/queue/schedules/daily_prices/fires?before=yesterday",
        "/admin/queue/schedules/daily_prices/fires?before=daily_prices@2026-12-01T00:15:00Z",
        "/admin/queue/workers?limit=1001",
        "/admin/queue/workers?after=",
    ] {
        let response = send(browser.system.get(path).header("x-api-key", KEY)).await;
        assert_eq!((response.status, response.validation_errors().len()), (422, 1), "{path}: {response:?}");
    }
}
