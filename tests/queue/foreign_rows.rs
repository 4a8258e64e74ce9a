//! Rows written by other programs: a malformed row affects only itself.

use std::time::Duration;

use queue::{
    JobKinds, Operator, Policy, Timing,
    filter::Filter,
    operator::{demand::Objective, trends::TrendWindow},
    status::State,
};

use crate::harness::{
    eventually,
    queue_harness::{FAST, NEVER, QueueHarness, SHORT_LEASE, ScriptedJobs, Step, order, quick_policy},
};

const SOON: Duration = Duration::from_secs(20);

/// Rows with times that the `time` crate cannot represent, counts at their limit, and unexpected texts and JSON.
const ROWS: &str = r#"
    INSERT INTO apalis.jobs (id, job_type, job, run_at, status, attempts, failures, crashes, errors, done_at, lock_at, last_result,
                             lock_by)
    SELECT 'row ' || row_number() OVER (), 'scripted', '{"name": "foreign", "steps": ["Fail", "Done"]}', odd.*,
           CASE WHEN status = 'Running' THEN 'c' END
    FROM (VALUES
        (timestamptz 'infinity', 'Pending', 0, 0, 0, NULL::jsonb, NULL::timestamptz, NULL::timestamptz, NULL::jsonb),
        ('-infinity', 'Pending', 0, 0, 0, NULL, NULL, NULL, NULL),
        ('20000-01-01', 'Pending', 0, 0, 0, NULL, 'infinity', '-infinity', '"x"'),
        ('4000-01-01 BC', 'Pending', 0, 0, 0, NULL, NULL, NULL, '[]'),
        ('2020-01-01', 'Pending', 2147483647, 0, 0, '{}', NULL, NULL, NULL),
        ('2020-01-01', 'Pending', -5, -5, -5, '"x"', NULL, NULL, NULL),
        ('2020-01-01', 'Pending', 0, 2147483647, 0, '[1, null, "x"]', NULL, NULL, NULL),
        ('2020-01-01', 'Pending', 0, 0, 2147483647, 'null', NULL, NULL, NULL),
        ('2020-01-01', 'Running', 2147483647, 2147483647, 2147483647, '{}', NULL, '20000-01-01', NULL),
        ('-infinity', 'Running', -1, 0, 1, 'null', NULL, 'infinity', NULL),
        ('infinity', 'Done', 1, 0, 0, NULL, '-infinity', 'infinity', NULL),
        ('infinity', 'Killed', 1, 0, 0, '{"error": 1}', 'infinity', '4700-01-01 BC', NULL),
        ('infinity', 'Weird', 1, 0, 0, NULL, '4000-01-01 BC', '20000-01-01', NULL),
        ('-infinity', 'Queued', 1, 0, 0, NULL, NULL, NULL, NULL)
    ) AS odd (run_at, status, attempts, failures, crashes, errors, done_at, lock_at, last_result)"#;

/// Makes the database refuse that these jobs get this status.
async fn refuse(harness: &QueueHarness, status: &str, names: &str) {
    let refuse = format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'a rule of the user'; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON apalis.jobs FOR EACH ROW
         WHEN (NEW.status = '{status}' AND convert_from(NEW.job, 'UTF8') ~ '\"name\":\"({names})\"')
         EXECUTE FUNCTION refuse()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(refuse)).execute(&harness.pool).await.expect("a trigger");
}

#[tokio::test]
async fn a_job_that_cannot_be_claimed_delays_no_other() {
    for (fair, concurrency) in [(false, 10), (true, 10), (false, 1)] {
        let harness = QueueHarness::start().await;
        let scripted = ScriptedJobs::new(Policy { fair, concurrency, ..quick_policy() });
        for n in 0..30 {
            harness.enqueue(&format!("job {n}"), &[Step::Done]).await;
        }
        refuse(&harness, "Running", "job 0|job 17").await;
        let running = harness.start_worker(&scripted, FAST);
        let others = "(SELECT count(*) = 28 FROM apalis.jobs WHERE status = 'Done')";
        harness.wait_until("the others are done", others).await;
        harness.enqueue("later", &[Step::Done]).await;
        eventually("a later job runs", SOON, async || scripted.runs_of("later") == 1).await;
        for name in ["job 0", "job 17"] {
            let row = harness.row(name).await;
            assert_eq!((row.status.as_str(), row.attempts, scripted.runs_of(name)), ("Pending", 0, 0), "{name}");
        }
        running.stop().await;
    }
}

/// More jobs than a claim in parts looks at are refused, and they are due first.
#[tokio::test]
async fn jobs_behind_refused_ones_are_claimed() {
    for concurrency in [10, 1] {
        let harness = QueueHarness::start().await;
        let scripted = ScriptedJobs::new(Policy { concurrency, ..quick_policy() });
        for n in 0..120 {
            harness.enqueue(&format!("head {n}"), &[Step::Done]).await;
        }
        for n in 0..20 {
            harness.enqueue(&format!("job {n}"), &[Step::Done]).await;
        }
        refuse(&harness, "Running", "head [0-9]+").await;
        let running = harness.start_worker(&scripted, FAST);
        let others = "(SELECT count(*) = 20 FROM apalis.jobs WHERE status = 'Done')";
        harness.wait_until("the others are done", others).await;
        assert_eq!(scripted.runs().len(), 20);
        running.stop().await;
    }
}

#[tokio::test]
async fn a_job_that_cannot_be_rescued_delays_no_other() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    for n in 0..20 {
        harness.enqueue(&format!("job {n}"), &[Step::Done]).await;
    }
    harness.execute("UPDATE apalis.jobs SET status = 'Running', lock_by = 'dead', attempts = 1").await;
    refuse(&harness, "Pending", "job 3|job 17").await;
    let running = harness.start_worker(&scripted, SHORT_LEASE);
    let others = "(SELECT count(*) = 18 FROM apalis.jobs WHERE status = 'Done')";
    harness.wait_until("the others were rescued and are done", others).await;
    for name in ["job 3", "job 17"] {
        let row = harness.row(name).await;
        assert_eq!((row.status.as_str(), row.crashes, scripted.runs_of(name)), ("Running", 0, 0), "{name}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_lost_claim_that_cannot_be_given_back_delays_no_other() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    for n in 0..20 {
        harness.enqueue_as(&format!("job {n}"), &[Step::Done], |job| job.after(Duration::from_secs(3600))).await;
    }
    refuse(&harness, "Pending", "job 3|job 17").await;
    let running = harness.start_worker(&scripted, SHORT_LEASE);
    harness.wait_for_heartbeats(1).await;
    let claim = "UPDATE apalis.jobs SET status = 'Running', attempts = 1, lock_by = (SELECT id FROM apalis.workers)";
    harness.execute(claim).await;
    let others = "(SELECT count(*) = 18 FROM apalis.jobs WHERE status = 'Done')";
    harness.wait_until("the others were given back and are done", others).await;
    for name in ["job 3", "job 17"] {
        let row = harness.row(name).await;
        assert_eq!((row.status.as_str(), row.crashes, scripted.runs_of(name)), ("Running", 0, 0), "{name}");
    }
    running.stop().await;
}

const WORKERS: &str = "
    INSERT INTO apalis.workers (id, worker_type, storage_name, layers, last_seen, lease, claim_errors) VALUES
        ('a', 'm', 'p', 'scripted', 'infinity', '178000000 years', '[]'), ('b', 'm', 'p', ',,', '-infinity', '-1 year', '3'),
        ('c', 'm', 'p', '', '20000-01-01', '0', '{\"scripted\": 1}')";

#[tokio::test]
async fn a_malformed_row_affects_only_itself() {
    let (harness, scripted) =
        (QueueHarness::start().await, ScriptedJobs::new(Policy { attempts: 2, ..quick_policy() }));
    let operator = Operator::new(&harness.pool.clone().into(), &harness.queue, JobKinds::default());
    harness.execute(ROWS).await;
    harness.execute(WORKERS).await;
    query_everything(&operator).await;
    // Without notifications and polls: the worker must find the jobs by their due times.
    let running = harness.start_worker(&scripted, Timing { poll: NEVER, ..FAST });
    for (name, delay) in [("now", 0), ("soon", 300), ("later", 1500)] {
        harness.enqueue_as(name, &[Step::Done], |job| job.after(Duration::from_millis(delay))).await;
    }
    for name in ["now", "soon", "later"] {
        eventually(name, SOON, async || scripted.runs_of(name) == 1).await;
    }
    harness.wait_until(
            "all due jobs have ended, and running jobs without a worker were rescued",
            "NOT EXISTS (SELECT FROM apalis.jobs WHERE status = 'Running' OR status = 'Pending' AND run_at < '3000-01-01')",
        )
        .await;
    running.stop().await;
    let left = "SELECT array_agg(status ORDER BY status) FROM apalis.jobs WHERE run_at > now()";
    let left: Vec<String> = sqlx::query_scalar(left).fetch_one(&harness.pool).await.unwrap();
    assert_eq!(left, ["Done", "Killed", "Pending", "Pending", "Weird"]);
    query_everything(&operator).await;
}

/// A snooze for the same reason as the last one counts up its event, whose count another program may have changed.
#[tokio::test]
async fn a_snooze_counts_on_from_any_count() {
    let (harness, scripted) = (QueueHarness::start().await, ScriptedJobs::new(quick_policy()));
    let counts = [
        ("largest", "2147483647", 2_147_483_647),
        ("huge", "1e400", 2_147_483_647),
        ("negative", "-5", 2),
        ("text", "\"x\"", 2),
        ("list", "[1]", 2),
        ("usual", "7", 8),
    ];
    for (name, ..) in counts {
        harness.enqueue(name, &[Step::SnoozeBecause(3_600_000, "busy".into())]).await;
    }
    let running = harness.start_worker(&scripted, FAST);
    let waits = |attempts: i32| {
        format!(
            "(SELECT count(*) = {} FROM apalis.jobs WHERE status = 'Pending' AND attempts = {attempts})",
            counts.len()
        )
    };
    harness.wait_until("each has snoozed once", &waits(1)).await;
    for (name, odd, _) in counts {
        let change = format!(
            "UPDATE apalis.jobs SET run_at = now(), events = jsonb_set(events, '{{-1,times}}', '{odd}')
             WHERE convert_from(job, 'UTF8') ~ '\"name\":\"{name}\"'"
        );
        assert_eq!(harness.execute(&change).await, 1, "{name}");
    }
    harness.wait_until("each has snoozed again", &waits(2)).await;
    running.stop().await;
    for (name, _, expected) in counts {
        let counted = format!(
            "SELECT events -> -1 -> 'times' FROM apalis.jobs WHERE convert_from(job, 'UTF8') ~ '\"name\":\"{name}\"'"
        );
        let counted: serde_json::Value =
            sqlx::query_scalar(sqlx::AssertSqlSafe(counted)).fetch_one(&harness.pool).await.expect("a count");
        assert_eq!(counted, expected, "{name}");
    }
}

/// Calls every read of the operator, and asserts that malformed rows are reported.
async fn query_everything(operator: &Operator) {
    let mut states: Vec<Option<State>> = State::ALL.into_iter().map(Some).collect();
    states.push(None);
    for state in states {
        for queue in [None, Some("scripted".to_owned())] {
            let filter = Filter { queue, state, ..Filter::default() };
            let listed = operator.list(&filter, 100).await.unwrap_or_else(|error| panic!("{state:?}: {error}"));
            assert!(state.is_some() || listed.jobs.len() >= 14, "{listed:?}");
            serde_json::to_string(&listed.jobs).unwrap_or_else(|error| panic!("{state:?}: {error}"));
            for job in listed.jobs {
                let details =
                    operator.show(&job.id).await.unwrap_or_else(|error| panic!("{}: {error}", job.id)).unwrap();
                serde_json::to_string(&details).unwrap_or_else(|error| panic!("{}: {error}", job.id));
                operator.why(&job.id).await.unwrap_or_else(|error| panic!("{}: {error}", job.id)).unwrap();
                assert!(job.state != State::Unknown || details.why.contains("does not know"), "{}", details.why);
            }
        }
    }
    let queues = operator.queues().await.unwrap();
    serde_json::to_string(&queues).unwrap();
    assert!(queues.iter().any(|queue| queue.name == "scripted"), "{queues:?}");
    serde_json::to_string(&operator.overview().await.unwrap()).unwrap();
    serde_json::to_string(&operator.queue_overview("scripted").await.unwrap().unwrap()).unwrap();
    serde_json::to_string(&operator.scale(&Objective::default()).await.unwrap()).unwrap();
    serde_json::to_string(&operator.dead_groups(None).await.unwrap()).unwrap();
    for window in TrendWindow::ALL {
        serde_json::to_string(&operator.trends("scripted", window).await.unwrap()).unwrap();
    }
    let workers = operator.workers().await.unwrap();
    serde_json::to_string(&workers).unwrap();
    assert!(workers.len() >= 3, "{workers:?}");
    for worker in workers {
        operator.held_by(&worker.id, 100).await.unwrap_or_else(|error| panic!("{}: {error}", worker.id));
    }
    // A malformed row is rejected with the reason when it is cancelled.
    for id in ["row 13", "row 14"] {
        let error = operator.cancel(id, &order()).await.unwrap_err().to_string();
        assert!(error.contains("does not know"), "{error}");
    }
}
