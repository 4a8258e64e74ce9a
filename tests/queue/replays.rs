//! Replays of many dead letters: rate, canary, stop, and restarts of workers.

use std::time::{Duration, Instant};

use queue::{
    CANCELLED, JobKinds, Operator, Registry, Worker,
    operator::replays::{Pace, Replay, ReplayChange, ReplayDeadLetters, Selection, StartedReplay},
    status::{Cancelled, Replayed},
};
use runtime::shutdown::Shutdown;

use crate::harness::{
    eventually,
    queue_harness::{FAST, QueueHarness, RunningWorker, ScriptedJob, ScriptedJobs, Step, order, quick_policy},
};

const SOON: Duration = Duration::from_secs(30);
const ALL_AT_ONCE: Pace =
    Pace { rate: 10_000.0, limit: 100_000, canary: 0, stop_if_dead: 1.0, include_replayed: false };

struct Replays {
    harness: QueueHarness,
    scripted: ScriptedJobs,
    operator: Operator,
}

impl Replays {
    async fn start() -> Self {
        Self::start_with(|_| JobKinds::default()).await
    }

    async fn start_with(kinds: impl FnOnce(&ScriptedJobs) -> JobKinds) -> Self {
        let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
        let operator = Operator::new(&harness.pool.clone().into(), &harness.queue, kinds(&scripted));
        Self { harness, scripted, operator }
    }

    /// Adds jobs that become dead letters in their first run. When they are replayed, they end with `then`.
    async fn add_dead(&self, name: &str, count: usize, then: &Step) {
        for n in 0..count {
            let reason = format!("account {n} of {name} is closed");
            self.harness.enqueue(&format!("{name} {n}"), &[Step::RejectWith(reason), then.clone()]).await;
        }
        self.run_until_all_end().await;
    }

    /// Runs a worker until no scripted job waits or runs.
    async fn run_until_all_end(&self) {
        let worker = self.harness.start_worker(&self.scripted, FAST);
        // A replay may wait for its worker meanwhile.
        let live =
            "NOT EXISTS (SELECT FROM apalis.jobs WHERE job_type = 'scripted' AND status IN ('Pending', 'Running'))";
        self.harness.wait_until("all jobs have ended", live).await;
        worker.stop().await;
    }

    /// Starts a worker that also runs replays.
    fn start_worker(&self) -> RunningWorker {
        let shutdown = Shutdown::default();
        let registry = Registry::default()
            .job::<ScriptedJob>(self.scripted.clone())
            .job::<ReplayDeadLetters>(self.operator.clone());
        RunningWorker { worker: Worker::start(&self.harness.database, FAST, registry, &shutdown).unwrap(), shutdown }
    }

    fn selection() -> Selection {
        Selection { queue: "scripted".into(), ..Selection::default() }
    }

    async fn start_replay(&self, pace: Pace) -> Replay {
        match self.operator.start_replay(&Self::selection(), pace, &order()).await.unwrap() {
            StartedReplay::Started(replay) => *replay,
            StartedReplay::ReplayedBefore(count) => panic!("{count} were replayed before"),
        }
    }

    async fn find(&self, replay: &Replay) -> Replay {
        self.operator.find_replay(replay.id).await.unwrap().expect("it exists")
    }

    async fn wait_for_state(&self, replay: &Replay, state: &str) -> Replay {
        eventually(&format!("the replay is {state}"), SOON, async || self.find(replay).await.state == state).await;
        self.find(replay).await
    }
}

#[tokio::test]
async fn errors_are_grouped_without_their_numbers() {
    let replays = Replays::start().await;
    replays.add_dead("a", 7, &Step::Done).await;
    replays.harness.enqueue("other", &[Step::RejectWith("connection refused".into())]).await;
    replays.harness.run_all(&replays.scripted).await;
    let groups = replays.operator.dead_groups(None).await.unwrap();
    let seen: Vec<_> = groups.iter().map(|group| (&*group.queue, group.count, group.died_in_15_min)).collect();
    assert_eq!(seen, [("scripted", 7, 7), ("scripted", 1, 1)]);
    assert_eq!(groups[0].sample_error.as_deref(), Some("account 6 of a is closed"));
    assert!(groups[0].first_died_at.is_some() && groups[0].first_died_at <= groups[0].last_died_at, "{groups:?}");
    assert!((groups[0].share - 0.875).abs() < 1e-9, "{groups:?}");
    assert!(replays.operator.dead_groups(Some("another")).await.unwrap().is_empty());
    let selection = Selection { group: Some(groups[0].group.clone()), ..Replays::selection() };
    let selected = replays.operator.select_dead(&selection).await.unwrap();
    assert_eq!((selected.count, selected.samples.len(), selected.is_capped), (7, 5, false));
    assert_eq!(Selection::parse_time("2026-11-28T13:00:00.000001+01:00").map(|at| at.hour()), Ok(12));
    assert!(Selection::parse_time("9999-12-31T23:59:59-01:00").is_err() && Selection::parse_time("1h").is_err());
    let closed = Selection { error: Some("account 3".into()), ..Replays::selection() };
    assert_eq!(replays.operator.select_dead(&closed).await.unwrap().count, 1);
}

#[tokio::test]
async fn a_replay_takes_the_dead_letters_of_its_start_and_is_recorded() {
    let replays = Replays::start().await;
    replays.add_dead("a", 30, &Step::Done).await;
    let replay = replays.start_replay(ALL_AT_ONCE).await;
    // Dead letters that come later are not taken.
    replays.add_dead("later", 3, &Step::Done).await;
    let worker = replays.start_worker();
    let done = replays.wait_for_state(&replay, "done").await;
    assert_eq!((done.replayed, done.skipped), (30, 0));
    replays
        .harness
        .wait_until(
            "all are done",
            "(SELECT count(*) = 30 FROM apalis.jobs WHERE status = 'Done' AND job_type = 'scripted')",
        )
        .await;
    assert_eq!(replays.operator.select_dead(&Replays::selection()).await.unwrap().count, 3);
    let actions = replays.operator.actions(&replay.id.to_string(), 10).await.unwrap();
    let seen: Vec<_> =
        actions.iter().map(|action| (&*action.actor, &*action.via, &*action.action, action.count)).collect();
    assert_eq!(seen, [("ada", "cli", "replay", 30)]);
    let filter = actions[0].filter.as_ref().unwrap();
    assert_eq!((&filter["queue"], &filter["rate"]), (&"scripted".into(), &10_000.0.into()));
    worker.stop().await;
}

#[tokio::test]
async fn a_replay_stops_when_its_canary_dies_again() {
    let replays = Replays::start().await;
    replays.add_dead("a", 50, &Step::Reject).await;
    let worker = replays.start_worker();
    let replay = replays.start_replay(Pace { canary: 4, stop_if_dead: 0.2, ..ALL_AT_ONCE }).await;
    let stopped = replays.wait_for_state(&replay, "stopped").await;
    assert_eq!(stopped.replayed, 4);
    assert_eq!(stopped.stopped_because.as_deref(), Some("4 of 4 jobs died again, more than 20 %"));
    assert_eq!(
        replays.operator.select_dead(&Replays::selection()).await.unwrap().count,
        50,
        "they are dead letters again"
    );
    worker.stop().await;
}

#[tokio::test]
async fn a_replay_keeps_its_rate_when_its_worker_is_replaced() {
    let replays = Replays::start().await;
    replays.add_dead("a", 120, &Step::Done).await;
    let first = replays.start_worker();
    let begun = Instant::now();
    let replay = replays.start_replay(Pace { rate: 20.0, ..ALL_AT_ONCE }).await;
    replays.harness.wait_until("the replay is under way", "(SELECT replayed > 0 FROM replays)").await;
    first.abort().await;
    let second = replays.start_worker();
    replays.wait_for_state(&replay, "done").await;
    let all = "(SELECT count(*) = 120 FROM apalis.jobs WHERE status = 'Done' AND job_type = 'scripted')";
    replays.harness.wait_until("all are done", all).await;
    // 120 jobs at 20/s: the last one is due 5.95 s after the first.
    assert!(begun.elapsed() > Duration::from_millis(5900), "{:?}", begun.elapsed());
    let due: f64 = sqlx::query_scalar(
        "SELECT extract(epoch FROM max(run_at) - min(run_at))::float8 FROM apalis.jobs WHERE job_type = 'scripted'",
    )
    .fetch_one(&replays.harness.pool)
    .await
    .unwrap();
    // The time without a worker is not made up.
    assert!((5.9..30.0).contains(&due), "the due times are spread over {due} s");
    second.stop().await;
}

#[tokio::test]
async fn an_operator_pauses_resumes_and_stops_a_replay() {
    let replays = Replays::start().await;
    replays.add_dead("a", 40, &Step::Done).await;
    let worker = replays.start_worker();
    let replay = replays.start_replay(Pace { rate: 1.0, ..ALL_AT_ONCE }).await;
    replays.harness.wait_until("the replay is under way", "(SELECT replayed > 0 FROM replays)").await;
    let change = async |change| replays.operator.change_replay(replay.id, change, &order()).await.unwrap();
    assert!(!change(ReplayChange::Resume).await, "it is not paused");
    assert!(change(ReplayChange::Pause).await);
    assert!(change(ReplayChange::Resume).await);
    assert!(change(ReplayChange::Stop).await);
    assert!(!change(ReplayChange::Stop).await, "it is stopped already");
    let stopped = replays.find(&replay).await;
    assert_eq!((&*stopped.state, stopped.stopped_because.as_deref()), ("stopped", Some("ada: the processor is down")));
    assert!(stopped.replayed < 40, "{stopped:?}");
    worker.stop().await;
}

#[tokio::test]
async fn discarded_dead_letters_are_not_replayed() {
    let replays = Replays::start().await;
    replays.add_dead("a", 12, &Step::Done).await;
    assert_eq!(replays.operator.discard_dead(&Replays::selection(), 5, &order()).await.unwrap(), 5);
    assert_eq!(replays.operator.select_dead(&Replays::selection()).await.unwrap().count, 7);
    assert_eq!(replays.operator.discard_dead(&Replays::selection(), 1000, &order()).await.unwrap(), 7);
    assert_eq!(replays.operator.select_dead(&Replays::selection()).await.unwrap().count, 0);
}

/// The ids of the later ones are older: they were enqueued first.
#[tokio::test]
async fn an_action_takes_what_was_counted_and_not_what_died_since() {
    let replays = Replays::start().await;
    replays.add_dead("counted", 4, &Step::Done).await;
    let counted = replays.operator.select_dead(&Replays::selection()).await.unwrap();
    replays.add_dead("later", 2, &Step::Done).await;
    let earlier = "UPDATE apalis.jobs SET id = '00' || substr(id, 3) WHERE convert_from(job, 'UTF8') LIKE '%later%'";
    assert_eq!(replays.harness.execute(earlier).await, 2);
    let selection = Selection { died_before: Some(counted.counted_at), ..Replays::selection() };
    assert_eq!(replays.operator.select_dead(&selection).await.unwrap().count, 4);
    assert_eq!(replays.operator.discard_dead(&selection, 1, &order()).await.unwrap(), 1);
    let pace = Pace { limit: 3, ..ALL_AT_ONCE };
    let replay = match replays.operator.start_replay(&selection, pace, &order()).await.unwrap() {
        StartedReplay::Started(replay) => replay,
        StartedReplay::ReplayedBefore(count) => panic!("{count} were replayed before"),
    };
    let worker = replays.start_worker();
    assert_eq!(replays.wait_for_state(&replay, "done").await.replayed, 3);
    worker.stop().await;
    let left = replays.operator.dead("scripted", None).await.unwrap();
    assert_eq!(left.len(), 2, "those that died later: {left:?}");
    assert!(left.iter().all(|job| job.last_error.as_ref().is_some_and(|error| error.contains("of later"))), "{left:?}");
}

#[tokio::test]
async fn a_job_that_cannot_be_replayed_is_skipped_with_its_cause() {
    let replays = Replays::start_with(|scripted| JobKinds::default().kind::<ScriptedJob>(scripted.clone())).await;
    for name in ["before", "refuses", "between", "breaks", "after"] {
        replays.harness.enqueue(name, &[Step::Reject, Step::Done]).await;
    }
    replays.run_until_all_end().await;
    let worker = replays.start_worker();
    let replay = replays.start_replay(ALL_AT_ONCE).await;
    let done = replays.wait_for_state(&replay, "done").await;
    assert_eq!((done.replayed, done.skipped), (3, 2));
    let causes: Vec<&str> = done.skips.iter().map(|skip| &*skip.cause).collect();
    assert!(matches!(causes[..], [one, other] if one.contains("refused") && other.contains("division by zero")));
    for (name, status) in [("before", "Done"), ("refuses", "Killed"), ("between", "Done"), ("breaks", "Killed")] {
        assert_eq!(replays.harness.row(name).await.status, status, "{name}");
    }
    let witnesses =
        "(SELECT array_agg(name ORDER BY name) = '{witness of after, witness of before, witness of between}'
                      FROM (SELECT convert_from(job, 'UTF8')::jsonb ->> 'name' AS name FROM apalis.jobs
                            WHERE job_type = 'scripted') AS jobs WHERE name LIKE 'witness%')";
    replays.harness.wait_until("what the skipped jobs did is undone", witnesses).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_replay_watches_its_last_jobs_until_they_have_ended() {
    for (then, state, because) in
        [(Step::Done, "done", None), (Step::Reject, "stopped", Some("3 of 3 jobs died again, more than 50 %"))]
    {
        let replays = Replays::start().await;
        replays.add_dead("a", 3, &Step::WaitThen(Box::new(then))).await;
        let worker = replays.start_worker();
        let replay = replays.start_replay(Pace { stop_if_dead: 0.5, ..ALL_AT_ONCE }).await;
        let watching = replays.wait_for_state(&replay, "watching").await;
        assert!(watching.replayed == 3 && watching.is_open() && watching.ended_at.is_none(), "{watching:?}");
        replays.scripted.gate.add_permits(3);
        let ended = replays.wait_for_state(&replay, state).await;
        assert_eq!(ended.stopped_because.as_deref(), because);
        assert!(!ended.is_open() && ended.ended_at.is_some(), "{ended:?}");
        worker.stop().await;
    }
}

#[tokio::test]
async fn the_third_replay_of_a_job_needs_a_confirmation() {
    let replays = Replays::start().await;
    replays.add_dead("a", 3, &Step::Reject).await;
    let worker = replays.start_worker();
    for _ in 0..2 {
        assert_eq!(replays.operator.select_dead(&Replays::selection()).await.unwrap().replayed_before, 0);
        let replay = replays.start_replay(ALL_AT_ONCE).await;
        assert_eq!(replays.wait_for_state(&replay, "done").await.replayed, 3);
    }
    let selected = replays.operator.select_dead(&Replays::selection()).await.unwrap();
    assert_eq!((selected.count, selected.replayed_before), (3, 3));
    let one = Pace { limit: 1, ..ALL_AT_ONCE };
    let refused = replays.operator.start_replay(&Replays::selection(), one, &order()).await.unwrap();
    assert!(matches!(refused, StartedReplay::ReplayedBefore(1)), "{refused:?}");
    assert_eq!(replays.operator.replays(None, 10).await.unwrap().rows.len(), 2, "it has not started");
    let third = replays.start_replay(Pace { include_replayed: true, ..one }).await;
    assert_eq!(replays.wait_for_state(&third, "done").await.replayed, 1);
    let job = replays.operator.show(&selected.samples[0].id).await.unwrap().expect("it exists");
    let replayed: Vec<&str> =
        job.events.iter().filter(|event| event.event == "replayed").map(|event| &*event.text).collect();
    assert_eq!((replayed.len(), replayed[2]), (3, &*format!("replayed by ada with the replay {}", third.id)));
    worker.stop().await;
}

/// The id of the job that performs the only replay.
async fn job_of_replay(replays: &Replays) -> String {
    let job = "SELECT id FROM apalis.jobs WHERE job_type = 'replay_dead_letters'";
    sqlx::query_scalar(job).fetch_one(&replays.harness.pool).await.unwrap()
}

#[tokio::test]
async fn a_replay_stops_when_its_job_is_cancelled_and_goes_on_when_the_job_is_replayed() {
    let replays = Replays::start().await;
    replays.add_dead("a", 20, &Step::Done).await;
    let replay = replays.start_replay(ALL_AT_ONCE).await;
    let job = job_of_replay(&replays).await;
    assert_eq!(replays.operator.cancel(&job, &order()).await.unwrap(), Cancelled::AtOnce);
    let stopped = replays.find(&replay).await;
    let because = format!("its job has ended: {CANCELLED}");
    assert_eq!((&*stopped.state, stopped.stopped_because.as_deref()), ("stopped", Some(&*because)));
    assert!(stopped.ended_at.is_some() && !stopped.is_open(), "{stopped:?}");
    assert_eq!(replays.operator.replay(&job, &order()).await.unwrap(), Replayed::Replayed);
    let running = replays.find(&replay).await;
    assert_eq!((&*running.state, running.stopped_because, running.ended_at), ("running", None, None));
    let worker = replays.start_worker();
    assert_eq!(replays.wait_for_state(&replay, "done").await.replayed, 20);
    worker.stop().await;
}

#[tokio::test]
async fn a_replay_that_an_operator_has_stopped_does_not_go_on_with_its_job() {
    let replays = Replays::start().await;
    replays.add_dead("a", 2, &Step::Done).await;
    let replay = replays.start_replay(ALL_AT_ONCE).await;
    let job = job_of_replay(&replays).await;
    assert!(replays.operator.change_replay(replay.id, ReplayChange::Stop, &order()).await.unwrap());
    assert_eq!(replays.operator.cancel(&job, &order()).await.unwrap(), Cancelled::AtOnce);
    assert_eq!(replays.operator.replay(&job, &order()).await.unwrap(), Replayed::Replayed);
    let worker = replays.start_worker();
    let is_done = "EXISTS (SELECT FROM apalis.jobs WHERE job_type = 'replay_dead_letters' AND status = 'Done')";
    replays.harness.wait_until("the job finds nothing to do", is_done).await;
    worker.stop().await;
    let stopped = replays.find(&replay).await;
    assert_eq!((&*stopped.state, stopped.stopped_because.as_deref()), ("stopped", Some("ada: the processor is down")));
    assert_eq!(replays.operator.select_dead(&Replays::selection()).await.unwrap().count, 2);
}

#[tokio::test]
async fn a_replay_stops_when_its_job_becomes_a_dead_letter() {
    let replays = Replays::start().await;
    replays.add_dead("a", 20, &Step::Done).await;
    let replay = replays.start_replay(ALL_AT_ONCE).await;
    let crashed = "UPDATE apalis.jobs SET crashes = 3 WHERE job_type = 'replay_dead_letters'";
    assert_eq!(replays.harness.execute(crashed).await, 1);
    let worker = replays.start_worker();
    let stopped = replays.wait_for_state(&replay, "stopped").await;
    let because = stopped.stopped_because.unwrap_or_default();
    assert!(because.starts_with("its job has ended: quarantined"), "{because}");
    let is_dead = "EXISTS (SELECT FROM apalis.jobs WHERE job_type = 'replay_dead_letters' AND status = 'Killed')";
    replays.harness.wait_until("the job is a dead letter", is_dead).await;
    let job = job_of_replay(&replays).await;
    assert_eq!(replays.operator.replay(&job, &order()).await.unwrap(), Replayed::Replayed);
    assert_eq!(replays.wait_for_state(&replay, "done").await.replayed, 20);
    worker.stop().await;
}

/// The database's clock was a day ahead when the next job was planned, and was then set back.
#[tokio::test]
async fn a_replay_does_not_wait_for_a_time_that_its_rate_cannot_reach() {
    for is_paused in [false, true] {
        let replays = Replays::start().await;
        replays.add_dead("a", 5, &Step::Done).await;
        let replay = replays.start_replay(Pace { rate: 10.0, ..ALL_AT_ONCE }).await;
        let change = async |change| replays.operator.change_replay(replay.id, change, &order()).await.unwrap();
        assert!(!is_paused || change(ReplayChange::Pause).await);
        replays.harness.execute("UPDATE replays SET next_at = now() + interval '1 day'").await;
        assert!(!is_paused || change(ReplayChange::Resume).await);
        let worker = replays.start_worker();
        assert_eq!(replays.wait_for_state(&replay, "done").await.replayed, 5);
        worker.stop().await;
    }
}
