//! Filters of lists, and the cancellation of all jobs that a filter selects.

use queue::{
    JobId, JobKinds, NewJob, Operator, enqueue,
    filter::Filter,
    status::{SEARCHED, State},
};

use crate::harness::queue_harness::{NEVER, QueueHarness, ScriptedJob, Step, order};

fn operator(harness: &QueueHarness) -> Operator {
    Operator::new(&harness.pool.clone().into(), &harness.queue, JobKinds::default())
}

async fn execute(harness: &QueueHarness, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&harness.pool).await.unwrap();
}

/// Jobs in every state, with ids of the year 2015.
const JOBS: &str = "
    INSERT INTO apalis.jobs (id, job_type, job, status, attempts, lock_by, error_group, errors, idempotency_key) VALUES
        ('01A00000000000000000000000', 'q', '', 'Pending', 0, NULL, NULL, NULL, 'k1'),
        ('01A00000000000000000000001', 'q', '', 'Pending', 3, 'w1', 'g1', '[{\"error\": \"refused\"}]', NULL),
        ('01A00000000000000000000002', 'q', '', 'Running', 4, 'w1', NULL, NULL, NULL),
        ('01A00000000000000000000003', 'q', '', 'Killed', 9, 'w2', 'g1', '[{\"error\": \"refused\"}]', 'k1'),
        ('01A00000000000000000000004', 'q', '', 'Killed', 9, 'w1', 'g2', '[{\"error\": \"lost\"}]', NULL),
        ('01A00000000000000000000005', 'q', '', 'Cancelled', 0, NULL, NULL, NULL, NULL),
        ('01A00000000000000000000006', 'q', '', 'Done', 1, 'w1', NULL, NULL, 'k1'),
        ('01A00000000000000000000007', 'r', '', 'Done', 1, 'w2', NULL, NULL, NULL),
        ('01A00000000000000000000008', 'r', '', 'Pending', 0, NULL, NULL, NULL, 'k1')";

#[tokio::test]
async fn every_condition_of_a_list_must_hold() {
    let harness = QueueHarness::start().await;
    execute(&harness, JOBS).await;
    let operator = operator(&harness);
    let text = |text: &str| Some(text.to_owned());
    let all = Filter::default;
    for (filter, expected) in [
        (all(), "876543210"),
        (Filter { queue: text("r"), ..all() }, "87"),
        (Filter { group: text("g1"), ..all() }, "31"),
        (Filter { group: text("g1"), state: Some(State::Dead), ..all() }, "3"),
        (Filter { group: text("g1"), state: Some(State::Dead), queue: text("r"), ..all() }, ""),
        (Filter { group: text(""), state: Some(State::Running), ..all() }, "2"),
        (Filter { worker: text("w1"), ..all() }, "6421"),
        (Filter { worker: text("w1"), state: Some(State::Dead), ..all() }, "4"),
        (Filter { attempts: Some(4), ..all() }, "432"),
        (Filter { attempts: Some(1), state: Some(State::Waiting), ..all() }, "1"),
        (Filter { key: text("k1"), ..all() }, "8630"),
        (Filter { key: text("k1"), state: Some(State::Waiting), ..all() }, "80"),
        (Filter { key: text("k1"), queue: text("q"), state: Some(State::Waiting), ..all() }, "0"),
        (Filter { error: text("refused"), worker: text("w2"), ..all() }, "3"),
        (Filter { older_than: "1s".parse().ok(), ..all() }, "876543210"),
        (Filter { older_than: "36500d".parse().ok(), ..all() }, ""),
    ] {
        let page = operator.list(&filter, 20).await.unwrap();
        let found: String = page.jobs.iter().filter_map(|job| job.id.chars().last()).collect();
        assert_eq!(found, expected, "{filter:?}");
        assert!(page.next.is_none() && page.searched_to.is_none(), "{page:?}");
    }
}

#[tokio::test]
async fn finished_jobs_are_searched_in_a_stated_window_and_then_further() {
    let harness = QueueHarness::start().await;
    execute(&harness, JOBS).await;
    let finished = format!(
        "INSERT INTO apalis.jobs (id, job_type, job, status)
         SELECT '01B' || lpad(n::text, 23, '0'), 'many', '', 'Done' FROM generate_series(1, {SEARCHED}) AS n"
    );
    execute(&harness, &finished).await;
    let operator = operator(&harness);
    let mut filter = Filter { queue: Some("q".into()), ..Filter::default() };
    let ids =
        |page: &queue::status::JobPage| page.jobs.iter().filter_map(|job| job.id.chars().last()).collect::<String>();
    let first = operator.list(&filter, 20).await.unwrap();
    assert_eq!(ids(&first), "543210", "the finished one is older than the window, the others have indexes");
    assert_eq!(first.searched_to.as_deref(), Some("01B00000000000000000000001"));
    assert_eq!(first.searched_back_to.map(|at| at.year()), Some(2016));
    filter.before = first.next;
    let second = operator.list(&filter, 20).await.unwrap();
    assert_eq!((ids(&second), second.next), ("6543210".into(), None), "the rest is searched");
}

#[tokio::test]
async fn a_filter_cancels_exactly_the_jobs_that_it_has_counted() {
    let harness = QueueHarness::start().await;
    let operator = operator(&harness);
    let enqueue = async |name: &str| {
        let id = JobId::generate();
        harness.enqueue_as(name, &[Step::Done], |job| job.id(id).after(NEVER)).await;
        id.to_string()
    };
    let mut selected = Vec::new();
    for n in 0..7 {
        selected.push(enqueue(&format!("selected {n}")).await);
    }
    let other = enqueue("other").await;
    let runs = format!("UPDATE apalis.jobs SET attempts = 2 WHERE id <> '{other}'");
    execute(&harness, &runs).await;
    let filter =
        Filter { queue: Some("scripted".into()), state: Some(State::Waiting), attempts: Some(2), ..Filter::default() };
    let counted = operator.select_live(&filter, None).await.unwrap();
    let samples: Vec<&str> = counted.samples.iter().map(|job| &*job.id).collect();
    assert_eq!((counted.count, counted.is_capped, samples), (7, false, selected[..5].iter().map(|id| &**id).collect()));

    let later = enqueue("later").await;
    execute(&harness, &runs).await;
    let shown = Some(&counted.ids[..]);
    let still = operator.select_live(&filter, shown).await.unwrap();
    assert_eq!((still.count, operator.cancel_selected(&filter, &still.ids, &order()).await.unwrap()), (7, 7));
    let waiting = Filter { state: Some(State::Waiting), ..Filter::default() };
    let left: Vec<String> = operator.list(&waiting, 10).await.unwrap().jobs.into_iter().map(|job| job.id).collect();
    assert_eq!(left, [later, other]);
    let actions = operator.list_actions(None, None, 100).await.unwrap().rows;
    let (sum, single) = actions.split_first().expect("actions");
    assert_eq!((&*sum.action, &*sum.target, sum.count, single.len()), ("cancel", "scripted", 7, 7));
    assert_eq!(sum.filter.as_ref().map(|filter| &filter["attempts"]), Some(&"2".into()));
    assert!(single.iter().all(|action| action.action == "cancel" && selected.contains(&action.target)), "{single:?}");
    assert_eq!(operator.select_live(&filter, shown).await.unwrap().count, 0, "all are cancelled");
}

/// The transaction of the late job is open while the others are counted.
#[tokio::test]
async fn a_job_that_is_committed_after_the_count_is_not_cancelled_although_its_id_is_older() {
    let harness = QueueHarness::start().await;
    let operator = operator(&harness);
    let [late, waits, runs] = std::array::from_fn(|_| JobId::generate());
    let mut tx = harness.queue.begin().await.unwrap();
    let job = ScriptedJob { name: "late".into(), steps: vec![Step::Done] };
    enqueue(&mut tx, &[NewJob::of(&job).unwrap().id(late).after(NEVER)]).await.unwrap();
    for (name, id) in [("waits", waits), ("runs", runs)] {
        harness.enqueue_as(name, &[Step::Done], |job| job.id(id).after(NEVER)).await;
    }
    let filter = Filter { queue: Some("scripted".into()), state: Some(State::Waiting), ..Filter::default() };
    let counted = operator.select_live(&filter, None).await.unwrap();
    assert_eq!((counted.count, &counted.ids), (2, &vec![waits.to_string(), runs.to_string()]));
    tx.commit().await.unwrap();
    let older = Filter { before: Some(counted.before.clone()), ..filter.clone() };
    assert_eq!(operator.select_live(&older, None).await.unwrap().count, 3, "its id is before those of the count");

    execute(&harness, &format!("UPDATE apalis.jobs SET status = 'Running' WHERE id = '{runs}'")).await;
    let still = operator.select_live(&filter, Some(&counted.ids)).await.unwrap();
    assert_eq!(still.ids, [waits.to_string()], "the other one no longer waits");
    let running = Filter { state: Some(State::Running), ..filter.clone() };
    assert_eq!(operator.select_live(&running, Some(&counted.ids)).await.unwrap().ids, [runs.to_string()]);
    assert_eq!(operator.cancel_selected(&filter, &still.ids, &order()).await.unwrap(), 1);
    let left = operator.list(&Filter { state: Some(State::Waiting), ..Filter::default() }, 10).await.unwrap().jobs;
    assert_eq!(left.iter().map(|job| &*job.id).collect::<Vec<_>>(), [late.to_string()]);
}

#[tokio::test]
async fn a_queue_of_which_nothing_is_known_is_searched_in_a_tenth_of_the_window() {
    let harness = QueueHarness::start().await;
    let rows = format!(
        "INSERT INTO apalis.jobs (id, job_type, job, status)
         SELECT '01B' || lpad(n::text, 23, '0'), CASE n WHEN {SEARCHED} THEN 'few' WHEN 1 THEN 'counted' ELSE 'many' END, '',
                'Done'
         FROM generate_series(1, {SEARCHED}) AS n"
    );
    execute(&harness, &rows).await;
    execute(&harness, "INSERT INTO queue_hours VALUES ('counted', now(), 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, '{}', '{}')")
        .await;
    let operator = operator(&harness);
    for (queue, found, searched) in [("unknown", 0, SEARCHED / 10), ("few", 1, SEARCHED / 10), ("counted", 1, SEARCHED)]
    {
        let filter = Filter { queue: Some(queue.into()), ..Filter::default() };
        let page = operator.list(&filter, 20).await.unwrap();
        let oldest = format!("01B{:023}", SEARCHED - searched + 1);
        assert_eq!((page.jobs.len(), page.searched, page.searched_to), (found, searched, Some(oldest)), "{queue}");
    }
}
