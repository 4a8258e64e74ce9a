//! Actions on the board: each after its form, with its notice and its record.

use std::time::Duration;

use super::{Browser, assert_page};
use crate::harness::eventually;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn actions_are_done_and_audited() {
    let browser = Browser::logged_in().await;
    let queue = "/board/queues/process_transaction";
    browser.insert_dead("01DEAD", "connection refused").await;
    browser.insert_dead("02DEAD", "connection refused").await;

    let response = browser.act(&format!("{queue}/pause"), &[("until", "30m")]).await;
    assert_eq!((response.status, response.header("location")), (303, &*format!("{queue}?notice=paused")));
    let page = browser.get(&format!("{queue}?notice=paused")).await;
    assert!(
        page.text.contains("by ada: the processor is down.") && page.text.contains("The queue is paused."),
        "{}",
        page.text
    );
    assert!(page.text.contains("Resume process_transaction"), "{}", page.text);
    assert!(browser.get("/board").await.text.contains("process_transaction has been paused"));
    assert_eq!(browser.act(&format!("{queue}/resume"), &[]).await.status, 303);

    let page = browser.act("/board/jobs/01DEAD/payload", &[]).await;
    assert_page(&page, 200, "the payload");
    assert!(page.text.contains("of the payload"), "{}", page.text);
    assert_eq!(browser.act("/board/jobs/01DEAD/replay", &[]).await.status, 303);
    assert_eq!(browser.act("/board/jobs/01DEAD/cancel", &[]).await.status, 303);
    assert_page(&browser.act("/board/jobs/01DEAD/cancel", &[]).await, 409, "it has ended");
    let discard = [("action", "discard"), ("queue", "q"), ("limit", "10")];
    assert_eq!(
        browser.act("/board/dead/discard", &discard).await.header("location"),
        "/board/dead?notice=discarded&n=1"
    );

    let audit = browser.audit().await;
    let done: Vec<_> = audit.iter().map(|(_, _, action, target, _)| (action.as_str(), target.as_str())).collect();
    let expected = [
        ("pause", "process_transaction"),
        ("resume", "process_transaction"),
        ("open", "01DEAD"),
        ("replay", "01DEAD"),
        ("cancel", "01DEAD"),
        ("discard", "q"),
    ];
    assert_eq!(done, expected);
    for (actor, via, _, _, reason) in audit {
        assert_eq!((&*actor, &*via, &*reason), ("ada", "board", "the processor is down"));
    }
}

#[tokio::test]
async fn a_replay_starts_from_its_preview_and_is_paused_and_stopped() {
    let browser = Browser::logged_in().await;
    for number in 0..7 {
        browser.insert_dead(&format!("0{number}DEAD"), "connection refused").await;
    }
    let preview =
        "/board/dead/preview?action=replay&queue=q&group=group&rate=20&limit=5&canary=0&stop_if_dead=20&reason=up";
    let page = browser.get(preview).await;
    assert!(page.text.contains("Replays 5 of 7 dead letters.") && page.text.contains("Replay 5 jobs"), "{}", page.text);
    let counted_at = page.text.split("name=\"died_before\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let wrong = [("action", "discard"), ("queue", "q"), ("died_before", "1h")];
    assert_page(&browser.act("/board/dead/discard", &wrong).await, 422, "no time");
    let plan = [
        ("action", "replay"),
        ("queue", "q"),
        ("group", "group"),
        ("rate", "20"),
        ("limit", "5"),
        ("canary", "0"),
        ("died_before", counted_at),
    ];
    let response = browser.act("/board/dead/replay", &plan).await;
    let replay = response.header("location").split('?').next().unwrap().to_owned();
    assert!(browser.get(&replay).await.text.contains("0 of at most 5"), "no worker has taken it yet");
    for (change, state) in [("pause", "paused"), ("resume", "running"), ("stop", "stopped")] {
        assert_eq!(browser.act(&format!("{replay}/{change}"), &[]).await.status, 303, "{change}");
        assert!(browser.get(&replay).await.text.contains(&format!(">{state}")), "{change}");
    }
    assert_page(&browser.act(&format!("{replay}/pause"), &[]).await, 409, "a stopped replay");

    let often = "UPDATE apalis.jobs SET replays = 2 WHERE status = 'Killed'";
    sqlx::query(often).execute(&browser.system.database.pool().await).await.unwrap();
    let page = browser.get(preview).await;
    assert!(page.text.contains("Replay them again: 7 of the selected jobs"), "{}", page.text);
    assert_page(&browser.act("/board/dead/replay", &plan).await, 409, "not confirmed");
    let confirmed = browser.act("/board/dead/replay", &[&plan[..], &[("include_replayed", "yes")]].concat()).await;
    assert_eq!(confirmed.status, 303, "{confirmed:?}");
}

#[tokio::test]
async fn the_third_replay_of_a_job_needs_a_confirmation() {
    let browser = Browser::logged_in().await;
    browser.insert_dead("01DEAD", "connection refused").await;
    assert!(!browser.get("/board/jobs/01DEAD").await.text.contains("include_replayed"));
    browser.execute("UPDATE apalis.jobs SET replays = 2").await;
    let page = browser.get("/board/jobs/01DEAD").await;
    assert!(page.text.contains("Replay it again: it was already replayed 2 times"), "{}", page.text);
    assert_page(&browser.act("/board/jobs/01DEAD/replay", &[]).await, 409, "not confirmed");
    let confirmed = browser.act("/board/jobs/01DEAD/replay", &[("include_replayed", "yes")]).await;
    assert_eq!(confirmed.status, 303, "{confirmed:?}");
}

#[tokio::test]
async fn the_jobs_of_a_filter_are_cancelled_after_a_preview() {
    let browser = Browser::logged_in().await;
    for number in 0..6 {
        browser.system.send_webhook(&format!("t-{number}")).await;
    }
    let list = "/board/jobs?queue=process_transaction&state=waiting";
    let page = browser.get(list).await;
    assert!(page.text.contains("Preview the cancellation"), "{}", page.text);
    let preview = "/board/jobs/cancel?queue=process_transaction&state=waiting&attempts=0&reason=test+data";
    let page = browser.get(preview).await;
    assert_page(&page, 200, "the preview");
    for text in
        ["Cancels 6 of 6 jobs.", "Cancel 6 jobs", "--attempts 0 --limit 6 --reason &#39;test data&#39; --dry-run"]
    {
        assert!(page.text.contains(text), "{text}: {}", page.text);
    }
    assert_eq!(page.text.matches("<tr data-row>").count(), 5, "five samples");
    let ids = page.text.split("name=\"ids\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let ids = ids.replace("&#34;", "\"");
    browser.system.send_webhook("later").await;
    let fields = [("queue", "process_transaction"), ("state", "waiting"), ("attempts", "0"), ("ids", &*ids)];
    let without = browser.act("/board/jobs/cancel", &fields[..3]).await;
    assert_page(&without, 422, "a form without the ids of a preview");
    let response = browser.act("/board/jobs/cancel", &fields).await;
    let location = "/board/jobs?queue=process_transaction&state=waiting&attempts=0&notice=cancelled-many&n=6";
    assert_eq!((response.status, response.header("location")), (303, location));
    let page = browser.get(location).await;
    assert!(page.text.contains("6 jobs are cancelled"), "{}", page.text);
    assert_eq!(page.text.matches("<tr data-row>").count(), 1, "the later one still waits");
}

#[tokio::test]
async fn a_schedule_is_fired_and_its_next_fire_skipped() {
    let browser = Browser::logged_in().await;
    for (action, notice) in [("fire", "fired&n=12"), ("skip-next", "skipped")] {
        let response = browser.act(&format!("/board/schedules/daily_prices/{action}"), &[]).await;
        let location = format!("/board/schedules?notice={notice}");
        assert_eq!((response.status, response.header("location")), (303, &*location), "{response:?}");
    }
    let page = browser.get("/board/schedules?notice=fired&n=12").await;
    assert_page(&page, 200, "the schedules");
    for text in ["The schedule has fired: 12 jobs.", "by hand", "skipped</span> by ada", ">waiting<"] {
        assert!(page.text.contains(text), "{text}: {}", page.text);
    }
    let again = browser.act("/board/schedules/daily_prices/skip-next", &[]).await;
    assert_page(&again, 409, "skipped already");
    assert_page(&browser.act("/board/schedules/hourly/fire", &[]).await, 404, "an unknown schedule");
}

#[tokio::test]
async fn a_disabled_destination_of_callbacks_is_enabled() {
    let browser = Browser::logged_in().await;
    browser.execute("INSERT INTO callback_destinations VALUES ('acme', now(), now(), '<b>410</b>')").await;
    let page = browser.get("/board/callbacks").await;
    assert_page(&page, 200, "the destinations");
    for text in ["acme is disabled", "Enable acme", "&#60;b&#62;410", "error=callbacks%20to%20acme%20are%20disabled"] {
        assert!(page.text.contains(text), "{text}: {}", page.text);
    }
    // A page has shown a list without it, which is used for 2 s.
    eventually("the first page names it", SOON, async || {
        let page = browser.get("/board").await.text;
        page.contains("<li><a href=\"/board/callbacks\">callbacks to acme were disabled ")
    })
    .await;
    let response = browser.act("/board/callbacks/enable", &[("destination", "acme")]).await;
    assert_eq!((response.status, response.header("location")), (303, "/board/callbacks?notice=enabled"));
    let page = browser.get("/board/callbacks?notice=enabled").await;
    assert!(page.text.contains("The destination is enabled.") && !page.text.contains("acme"), "{}", page.text);
    assert_page(&browser.act("/board/callbacks/enable", &[("destination", "acme")]).await, 404, "it is not configured");
    let [(actor, via, action, target, _)] = &browser.audit().await[..] else { panic!("one action") };
    assert_eq!([actor, via, action, target], ["ada", "board", "enable_callbacks", "callbacks:acme"]);
}
