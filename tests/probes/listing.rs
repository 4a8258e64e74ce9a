//! The list of 100,000 probes over HTTP: complete, in little memory, for stalled readers, and never silently truncated.

use std::{fs, time::Duration};

use reqwest::Method;
use sqlx::PgPool;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::ProbeHarness;
use crate::harness::{eventually, http::send};

const MANY: usize = 100_000;
/// Twenty readers of 100,000 probes each took more than 20 s on a machine with a load of 15.
const SOON: Duration = Duration::from_secs(60);

async fn insert_probes(pool: &PgPool, probes: usize) {
    let insert = "INSERT INTO probes (id, grid_id, grid_x, grid_y, x, y, direction)
                  SELECT gen_random_uuid(), gen_random_uuid(), 2147483647, 1, n, 1, 'SOUTH' FROM generate_series(1, $1) AS n";
    sqlx::query(insert).bind(i32::try_from(probes).unwrap()).execute(pool).await.expect("probes");
}

/// The peak resident memory of a process in KiB.
fn peak_memory_kib(process: u32) -> i64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Counts the probes of the list. Returns the first 20 and the last 60 characters too.
async fn read_all(harness: &ProbeHarness) -> (usize, String, String) {
    let request = harness.client.get(format!("{}/api/v1/check", harness.url()));
    let mut response = request.send().await.expect("a response");
    let (mut probes, mut first, mut last) = (0, String::new(), String::new());
    while let Some(chunk) = response.chunk().await.expect("a complete body") {
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
async fn listing_100_000_probes_takes_little_memory() {
    let harness = ProbeHarness::start(1).await;
    let pool = harness.database.pool().await;
    insert_probes(&pool, MANY / 20).await;
    assert_eq!(read_all(&harness).await.0, MANY / 20);
    let before = peak_memory_kib(harness.apis[0].process.pid());
    insert_probes(&pool, MANY - MANY / 20).await;
    let (probes, first, last) = read_all(&harness).await;
    assert_eq!(probes, MANY);
    assert!(first.starts_with("{\"probes\":[{\"id\":\""), "{first}");
    assert!(last.ends_with("\"y\":1,\"direction\":\"SOUTH\"}]}\n"), "{last}");
    let increase = peak_memory_kib(harness.apis[0].process.pid()) - before;
    // The whole list is 9 MiB of JSON and 5 MiB of rows.
    println!("{increase} KiB more for {MANY} probes");
    assert!(increase < 3 * 1024, "{increase} KiB more than for a twentieth of the probes");
}

#[tokio::test]
async fn pages_and_the_whole_list_agree_oldest_first() {
    let harness = ProbeHarness::start(1).await;
    let pool = harness.database.pool().await;
    assert_eq!(harness.list_probes("").await.text, "{\"probes\":[]}\n");
    assert_eq!(harness.list_probes("?limit=5").await.text, "{\"probes\":[]}\n");
    // Around the internal page size of 1,000.
    for added in [999, 1, 1, 999, 1] {
        insert_probes(&pool, added).await;
        let whole = harness.list_probes("").await.json()["probes"].as_array().expect("whole").clone();
        let ids: Vec<String> =
            sqlx::query_scalar("SELECT id::text FROM probes ORDER BY number").fetch_all(&pool).await.unwrap();
        let listed: Vec<&str> = whole.iter().map(|probe| probe["id"].as_str().expect("an id")).collect();
        assert_eq!(listed, ids);
        let (mut paged, mut path) = (Vec::new(), "/api/v1/check?limit=600".to_owned());
        loop {
            let page = harness.send(Method::GET, &path, "").await;
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
    let link = harness.list_probes("?limit=1000").await.header("link").to_owned();
    let cursor = link.split_once("cursor=").and_then(|(_, rest)| rest.split_once('>')).expect("a cursor").0;
    assert_eq!(
        harness.list_probes(&format!("?cursor={cursor}")).await.json()["probes"].as_array().map(Vec::len),
        Some(1001)
    );
    let wrong = harness.list_probes("?limit=1001&cursor=x").await;
    wrong.assert_problem(422, "both");
    let kinds: Vec<_> = wrong.validation_errors().into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(kinds, ["less_than_equal", "value_error"]);
    let head = send(harness.client.head(format!("{}/api/v1/check", harness.url()))).await;
    assert_eq!(
        (head.status, head.header("content-type"), head.header("content-length")),
        (200, "application/json", "")
    );
}

/// Requests the whole list and stops reading after one byte. Little of the list fits into the socket buffers.
async fn open_stalled_reader(harness: &ProbeHarness) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let address = harness.url().strip_prefix("http://").expect("http").parse().expect("an address");
    let mut stream = socket.connect(address).await.expect("a connection");
    let request = b"GET /api/v1/check HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.expect("a request");
    let mut one = [0; 1];
    stream.read_exact(&mut one).await.expect("the first byte of a response");
    stream
}

/// Waits until the API has read no page for 300 ms.
async fn wait_until_stalled(pool: &PgPool) {
    // No query is running, and none has started for longer than a page takes.
    let active = "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'millrace api'
                   AND (xact_start IS NOT NULL OR state_change > clock_timestamp() - interval '300 ms')
                   AND query LIKE '%FROM probes%'";
    eventually("the API has stopped reading pages", SOON, async || {
        sqlx::query_scalar::<_, i64>(active).fetch_one(pool).await.expect("a count") == 0
    })
    .await;
}

async fn read_to_end(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    bytes
}

#[tokio::test]
async fn a_stalled_reader_holds_no_session_and_gets_the_rest_later() {
    let harness = ProbeHarness::start(1).await;
    let pool = harness.database.pool().await;
    insert_probes(&pool, MANY).await;
    let before = peak_memory_kib(harness.apis[0].process.pid());
    let readers = futures_util::future::join_all((0..20).map(|_| open_stalled_reader(&harness))).await;
    wait_until_stalled(&pool).await;
    // More readers than database sessions, and none of them holds one.
    assert_eq!(harness.list_probes("?limit=1").await.status, 200);
    // A stalled reader would keep its lock, until the API closes its connection after 75 s. One that only paused on a
    // busy machine still reads pages.
    eventually("no reader locks the table", Duration::from_secs(20), async || {
        let mut tx = pool.begin().await.unwrap();
        sqlx::query("SET LOCAL lock_timeout = '1s'").execute(&mut *tx).await.unwrap();
        let locked = sqlx::query("LOCK TABLE probes IN ACCESS EXCLUSIVE MODE").execute(&mut *tx).await;
        tx.rollback().await.unwrap();
        locked.is_ok()
    })
    .await;
    let increase = peak_memory_kib(harness.apis[0].process.pid()) - before;
    assert!(increase < 20 * 1024, "{increase} KiB for 20 stalled readers");
    // A later probe is not in their lists: each list ends with the newest probe at its start.
    insert_probes(&pool, 1).await;
    let texts = futures_util::future::join_all(readers.into_iter().take(2).map(read_to_end)).await;
    for text in texts {
        assert_eq!(text.windows(11).filter(|part| part == b"\"direction\"").count(), MANY);
        assert!(text.ends_with(b"]}\n\r\n0\r\n\r\n"), "the response is complete");
    }
}

#[tokio::test]
async fn an_error_in_the_middle_truncates_the_response() {
    let mut harness = ProbeHarness::start(1).await;
    let pool = harness.database.pool().await;
    insert_probes(&pool, MANY).await;
    let reader = open_stalled_reader(&harness).await;
    wait_until_stalled(&pool).await;
    sqlx::query("ALTER TABLE probes RENAME TO away").execute(&pool).await.unwrap();
    let text = read_to_end(reader).await;
    assert!(!text.is_empty() && !text.ends_with(b"0\r\n\r\n"), "the response does not look complete");
    harness.apis[0].process.wait_for_line("probe listing aborted").await;
    harness.list_probes("").await.assert_problem(500, "an error before the first byte");
}
