//! 100,000 probes over HTTP: whole, in little memory, for readers that stop, and never a part for the whole.

use std::{fs, time::Duration};

use reqwest::Method;
use sqlx::PgPool;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::System;
use crate::harness::{eventually, http::ask};

const MANY: usize = 100_000;
const SOON: Duration = Duration::from_secs(20);

async fn fill(pool: &PgPool, probes: usize) {
    let insert = "INSERT INTO probes (id, grid_id, grid_x, grid_y, x, y, direction)
                  SELECT gen_random_uuid(), gen_random_uuid(), 2147483647, 1, n, 1, 'SOUTH' FROM generate_series(1, $1) AS n";
    sqlx::query(insert).bind(i32::try_from(probes).unwrap()).execute(pool).await.expect("probes");
}

/// The largest memory that a process has had, in KiB.
fn peak(process: u32) -> i64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Counts objects and remembers both ends, without keeping the rest.
async fn read_all(system: &System) -> (usize, String, String) {
    let request = system.client.get(format!("{}/api/v1/check", system.url()));
    let mut answer = request.send().await.expect("an answer");
    let (mut probes, mut first, mut last) = (0, String::new(), String::new());
    while let Some(chunk) = answer.chunk().await.expect("a whole answer") {
        probes += chunk.iter().filter(|byte| **byte == b'}').count();
        let text = String::from_utf8_lossy(&chunk).into_owned();
        if first.is_empty() {
            first = text.chars().take(20).collect();
        }
        last = (last + &text).chars().rev().take(60).collect::<String>().chars().rev().collect();
    }
    (probes - 1, first, last)
}

#[tokio::test]
async fn a_hundred_thousand_take_little_memory() {
    let system = System::start(1).await;
    let pool = system.database.pool().await;
    fill(&pool, MANY / 20).await;
    assert_eq!(read_all(&system).await.0, MANY / 20);
    let before = peak(system.apis[0].process.pid());
    fill(&pool, MANY - MANY / 20).await;
    let (probes, first, last) = read_all(&system).await;
    assert_eq!(probes, MANY);
    assert!(first.starts_with("{\"probes\":[{\"id\":\""), "{first}");
    assert!(last.ends_with("\"y\":1,\"direction\":\"SOUTH\"}]}\n"), "{last}");
    let more = peak(system.apis[0].process.pid()) - before;
    // As a whole they are 9 MiB of JSON, and 5 MiB of rows.
    println!("{more} KiB more for {MANY} probes");
    assert!(more < 3 * 1024, "{more} KiB more than for a twentieth of them");
}

#[tokio::test]
async fn pages_and_the_whole_are_the_same_oldest_first() {
    let system = System::start(1).await;
    let pool = system.database.pool().await;
    assert_eq!(system.check("").await.text, "{\"probes\":[]}\n");
    assert_eq!(system.check("?limit=5").await.text, "{\"probes\":[]}\n");
    // Around the edge of a page of ours.
    for more in [999, 1, 1, 999, 1] {
        fill(&pool, more).await;
        let whole = system.check("").await.json()["probes"].as_array().expect("whole").clone();
        let ids: Vec<String> =
            sqlx::query_scalar("SELECT id::text FROM probes ORDER BY number").fetch_all(&pool).await.unwrap();
        let shown: Vec<&str> = whole.iter().map(|probe| probe["id"].as_str().expect("an id")).collect();
        assert_eq!(shown, ids);
        let (mut paged, mut path) = (Vec::new(), "/api/v1/check?limit=600".to_owned());
        loop {
            let page = system.send(Method::GET, &path, "").await;
            let probes = page.json()["probes"].as_array().expect("a page").clone();
            assert!(!probes.is_empty() && probes.len() <= 600);
            paged.extend(probes);
            match page.header("link").strip_prefix('<').and_then(|link| link.split_once(">; rel=\"next\"")) {
                Some((next, _)) => path = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(paged, whole);
    }
    let link = system.check("?limit=1000").await.header("link").to_owned();
    let cursor = link.split_once("cursor=").and_then(|(_, rest)| rest.split_once('>')).expect("a cursor").0;
    assert_eq!(system.check(&format!("?cursor={cursor}")).await.json()["probes"].as_array().map(Vec::len), Some(1001));
    let wrong = system.check("?limit=1001&cursor=x").await;
    wrong.assert_problem(422, "both");
    let kinds: Vec<_> = wrong.failures().into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(kinds, ["less_than_equal", "value_error"]);
    let head = ask(system.client.head(format!("{}/api/v1/check", system.url()))).await;
    assert_eq!(
        (head.status, head.header("content-type"), head.header("content-length")),
        (200, "application/json", "")
    );
}

/// Asks for everything and reads nothing. Little of it fits into the connection's buffers.
async fn stopped_reader(system: &System) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let address = system.url().strip_prefix("http://").expect("http").parse().expect("an address");
    let mut stream = socket.connect(address).await.expect("a connection");
    let request = b"GET /api/v1/check HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.expect("a request");
    let mut one = [0; 1];
    stream.read_exact(&mut one).await.expect("the beginning of an answer");
    stream
}

/// Waits until the API has read no page for a while.
async fn until_stalled(pool: &PgPool) {
    // Nothing is under way, and nothing has begun for longer than a page takes.
    let quiet = "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'millrace api'
                   AND (xact_start IS NOT NULL OR state_change > clock_timestamp() - interval '300 ms')
                   AND query LIKE '%FROM probes%'";
    eventually("the reading has stopped", SOON, async || {
        sqlx::query_scalar::<_, i64>(quiet).fetch_one(pool).await.expect("an answer") == 0
    })
    .await;
}

async fn read_to_end(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    bytes
}

#[tokio::test]
async fn a_reader_that_stops_holds_nothing_and_gets_the_rest_later() {
    let system = System::start(1).await;
    let pool = system.database.pool().await;
    fill(&pool, MANY).await;
    let before = peak(system.apis[0].process.pid());
    let readers = futures_util::future::join_all((0..20).map(|_| stopped_reader(&system))).await;
    until_stalled(&pool).await;
    // More than there are sessions: none of them is taken.
    assert_eq!(system.check("?limit=1").await.status, 200);
    let mut tx = pool.begin().await.unwrap();
    sqlx::query("SET LOCAL lock_timeout = '1s'").execute(&mut *tx).await.unwrap();
    sqlx::query("LOCK TABLE probes IN ACCESS EXCLUSIVE MODE").execute(&mut *tx).await.expect("nobody holds the table");
    tx.rollback().await.unwrap();
    let more = peak(system.apis[0].process.pid()) - before;
    assert!(more < 20 * 1024, "{more} KiB for 20 readers that have stopped");
    // What has come since is not theirs: the list ends with what was the newest when it began.
    fill(&pool, 1).await;
    let texts = futures_util::future::join_all(readers.into_iter().take(2).map(read_to_end)).await;
    for text in texts {
        assert_eq!(text.windows(11).filter(|part| part == b"\"direction\"").count(), MANY);
        assert!(text.ends_with(b"]}\n\r\n0\r\n\r\n"), "ended as a whole");
    }
}

#[tokio::test]
async fn an_error_in_the_middle_breaks_the_answer_off() {
    let system = System::start(1).await;
    let pool = system.database.pool().await;
    fill(&pool, MANY).await;
    let reader = stopped_reader(&system).await;
    until_stalled(&pool).await;
    sqlx::query("ALTER TABLE probes RENAME TO away").execute(&pool).await.unwrap();
    let text = read_to_end(reader).await;
    assert!(!text.is_empty() && !text.ends_with(b"0\r\n\r\n"), "not ended as if it were whole");
    assert!(system.apis[0].process.log().contains("probe listing aborted"));
    system.check("").await.assert_problem(500, "before there is anything to show");
}
