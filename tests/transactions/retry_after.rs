//! `Retry-After` of a processor: every form leads to another call, and an unreadable one to the default delay.

use std::time::{Duration, Instant};

use super::{System, fake_processor::FakeProcessor};
use crate::harness::{eventually, http::send};

const DEFAULT: Duration = Duration::from_secs(5);
/// Values that cannot be parsed, or whose date contradicts itself. The transaction's id has the index.
const UNREADABLE: [&str; 12] = [
    "4.5",
    "4s",
    "PT4S",
    "",
    "soon",
    "-1",
    "+4",
    "4, 4",
    "Sat, 28 Nov 2026 09:31:00 -0000",
    "Sat, 28 Nov 2026 09:31:00 +0100",
    "Sun, 28 Nov 2026 09:31:00 GMT",
    "2026-11-28T09:31:00Z",
];
const PAST: [&str; 3] = ["Fri, 31 Dec 1999 23:59:59 GMT", "Friday, 31-Dec-99 23:59:59 GMT", "Fri Dec 31 23:59:59 1999"];
const FAR: [&str; 4] = ["99999999999999999999", "86401", "99999999999", "Fri, 31 Dec 9999 23:59:59 GMT"];

/// An id holds the status, the list of headers, and the index in it: `202-unreadable-3`.
fn script(id: &str, call: usize) -> (u16, Option<&'static str>, Duration) {
    let mut parts = id.split('-');
    let mut part = || parts.next().unwrap_or_default();
    let (status, kind, number) = (part().parse().unwrap(), part(), part().parse::<usize>().unwrap());
    let header = match kind {
        "unreadable" => UNREADABLE[number],
        "past" => PAST[number],
        _ => FAR[number],
    };
    if call == 1 || kind == "far" { (status, Some(header), Duration::ZERO) } else { (200, None, Duration::ZERO) }
}

#[tokio::test]
async fn the_processor_is_called_again_for_any_retry_after() {
    let processor = FakeProcessor::start(script).await;
    let variables = [("PROCESSOR_URL", &*processor.url), ("PROCESSOR_ATTEMPTS", "2")];
    let system = System::start(&variables).await;
    let _worker = system.start_worker(&variables).await;
    let ids = |kind: &str, count: usize| -> Vec<String> {
        let numbered = |status: &u16| (0..count).map(|number| format!("{status}-{kind}-{number}")).collect::<Vec<_>>();
        [202, 503, 429, 500, 409].iter().flat_map(numbered).collect()
    };
    let (unreadable, past, far) = (ids("unreadable", UNREADABLE.len()), ids("past", PAST.len()), ids("far", FAR.len()));
    for id in unreadable.iter().chain(&past).chain(&far) {
        system.send_webhook(id).await;
    }
    let begun = Instant::now();
    for (ids, least) in [(&past, Duration::from_secs(1)), (&unreadable, DEFAULT)] {
        for id in ids {
            assert_eq!(system.wait_until_settled(id).await["status"], "PROCESSED", "{id}");
            let calls = processor.calls(id);
            assert_eq!(calls.len(), 2, "{id}: {calls:?}");
            let pause = calls[1].at - calls[0].at;
            assert!(pause >= least, "{id} was called again after {pause:?}");
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    for id in &far {
        eventually("the retry is a day away", Duration::from_secs(20), async || {
            let response = send(system.get(&format!("/v1/transactions/{id}"))).await;
            let seconds = response.header("retry-after").parse::<u64>();
            seconds.is_ok_and(|seconds| (86_000..=86_400).contains(&seconds))
        })
        .await;
        assert_eq!(processor.calls(id).len(), 1, "{id}");
    }
}
