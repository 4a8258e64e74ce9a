//! The statements of operators, and the deletion of old jobs.

use std::time::Duration;

use runtime::executor::once;
use time::OffsetDateTime;

use super::{
    cases::{Column, STATUSES, jobs, rows},
    runs::{PAUSES, differences, waited_for_lock},
    world::{Expected, OTHER, QUEUE, RETENTION, Row, World, worker},
};
use crate::{
    low_water::Marks,
    model::{
        guard::Rules,
        row::{Due, Ended, Job, Status},
    },
    order::{Order, Via},
    replay::Selection,
    store::{self, operator as sql, operator::replays},
};

/// Whether the order names this job: it names every second one.
fn is_named(row: &Row) -> bool {
    row.number.is_multiple_of(2)
}

/// An operator locks the job that its order names, and reads it as it is. No worker claims it meanwhile.
pub(super) async fn lock(world: &World) -> Vec<String> {
    let all = rows(jobs(&[]));
    world.write(&all).await;
    let statement = async || {
        let mut tx = world.begin().await;
        let mut wrong = Vec::new();
        for row in all.iter().filter(|row| is_named(row)) {
            let found = sql::lock(&mut tx, &row.id).await?.map(|job| (job.queue, job.status, job.payload));
            let expected = Some((QUEUE.to_owned(), format!("{:?}", row.job.status), b"{}".to_vec()));
            wrong.extend((found != expected).then(|| format!("{:?} was read as {found:?}", row.job)));
        }
        store::claim::claim(&world.subject, worker(0), QUEUE, Marks::default(), 1_000_000).await?;
        Ok(wrong)
    };
    let claimed = |row: &Row| row.job.claim(0, false, Rules::ALL).filter(|_| !is_named(row));
    world.check(&all, |row| claimed(row).into(), statement).await
}

pub(super) async fn cancel(world: &World) -> Vec<String> {
    let all = rows(jobs(&[Column::Due, Column::Ended]));
    world.write(&all).await;
    let cancelled = |row: &Row| row.job.cancel(Rules::ALL).filter(|_| is_named(row));
    let statement = async || {
        let mut tx = world.begin().await;
        for row in all.iter().filter(|row| is_named(row)) {
            sql::cancel(&mut tx, &row.id, "cancelled").await?;
        }
        tx.commit().await?;
        let counted: Option<i64> =
            sqlx::query_scalar("SELECT sum(cancelled)::int8 FROM queues").fetch_one(once(&world.direct)).await?;
        let expected = all.iter().filter_map(cancelled).count() as i64;
        Ok((counted != Some(expected)).then(|| format!("{counted:?} cancelled, not {expected}")).into_iter().collect())
    };
    world.check(&all, |row| cancelled(row).into(), statement).await
}

/// A request may be repeated. The statement does not check that the job still runs, because the operator has locked it.
pub(super) async fn request_cancellation(world: &World) -> Vec<String> {
    let all = rows(jobs(&[Column::CancelRequested]));
    world.write(&all).await;
    let requested = |row: &Row| {
        let is_new = is_named(row) && !row.job.cancel_requested;
        is_new.then_some(Job { cancel_requested: true, ..row.job })
    };
    let statement = async || {
        let mut tx = world.begin().await;
        for row in all.iter().filter(|row| is_named(row)) {
            sql::request_cancellation(&mut tx, &row.id).await?;
            sql::request_cancellation(&mut tx, &row.id).await?;
        }
        tx.commit().await?;
        Ok(Vec::new())
    };
    world.check(&all, |row| requested(row).into(), statement).await
}

/// The requests that workers read; those of ended jobs are deleted.
pub(super) async fn cancellations(world: &World) -> Vec<String> {
    let all = rows(jobs(&[Column::CancelRequested]));
    world.write(&all).await;
    let statement = async || {
        let mut wrong = Vec::new();
        for row in all.iter().take(20) {
            let is_cancelled = sql::is_cancelled(&world.subject, &row.id).await?;
            wrong.extend((is_cancelled != row.job.cancel_requested).then(|| format!("{:?}: {is_cancelled}", row.job)));
        }
        let open = sql::cancellations(&world.subject).await?;
        let expected = all.iter().filter(|row| row.job.cancel_requested && row.job.is_live()).map(|row| row.id.clone());
        Ok([wrong, differences("requested", open, expected)].concat())
    };
    world.check(&all, |row| row.job.tidy(Rules::ALL).into(), statement).await
}

/// Jobs without a key; and pairs of a dead job and another job with its key, which has each status and is in the same queue
/// or in another one. Returns the rows, and for each whether its key is taken.
fn replay_rows() -> (Vec<Row>, Vec<bool>) {
    let mut all = rows(jobs(&[Column::Crashes, Column::Failures, Column::Ended, Column::CancelRequested]));
    let mut taken = vec![false; all.len()];
    for dead in [Status::Killed, Status::Cancelled] {
        for status in STATUSES {
            for queue in [QUEUE, OTHER] {
                // An even number, which the order names, before an odd one.
                let named = all.len() + all.len() % 2;
                let job = Row::new(named, Job { status: dead, ..Job::new(Due::Now, true) });
                let other = Row::new(named + 1, Job { status, ..Job::new(Due::Now, true) });
                let key = job.key.clone();
                taken.resize(named + 2, false);
                taken[named] = queue == QUEUE && other.job.is_live();
                all.extend([job, Row { queue, key, ..other }]);
            }
        }
    }
    (all, taken)
}

pub(super) async fn replay(world: &World) -> Vec<String> {
    let (all, taken) = replay_rows();
    world.write(&all).await;
    let replayed = |row: &Row| row.job.replay(taken[row.number], Rules::ALL).filter(|_| is_named(row));
    let statement = async || {
        let mut tx = world.begin().await;
        let mut wrong = Vec::new();
        for row in all.iter().filter(|row| is_named(row)) {
            let is_replayed = sql::replay(&mut tx, &row.id).await?;
            let expected = replayed(row).is_some_and(|job| job.replays > row.job.replays);
            wrong.extend((is_replayed != expected).then(|| format!("{:?}: {is_replayed}", row.job)));
        }
        tx.commit().await?;
        Ok(wrong)
    };
    world.check(&all, |row| replayed(row).into(), statement).await
}

/// Dead letters of other queues, groups and errors stay; and so does the newest one, because of the limit.
pub(super) async fn discard(world: &World) -> Vec<String> {
    let all: Vec<Row> = rows(jobs(&[Column::Failures, Column::Crashes, Column::Ended]).repeat(4))
        .into_iter()
        .map(|row| match row.number % 7 {
            0 => Row { queue: OTHER, ..row },
            1 => Row { error: "another error", ..row },
            2 => Row { group: "another group", ..row },
            _ => row,
        })
        .collect();
    world.write(&all).await;
    // Only those whose end is long ago, and not those without an end.
    let died_before = "SELECT now() - make_interval(secs => $1)";
    let died_before = sqlx::query_scalar(died_before).bind(RETENTION[1]).fetch_one(once(&world.direct)).await;
    let died_before = Some(died_before.expect("the time of the server"));
    let selection =
        Selection { queue: QUEUE.into(), group: Some("broken".into()), error: Some("brok".into()), died_before };
    let is_selected = |row: &Row| (3..7).contains(&(row.number % 7)) && row.job.ended == Ended::LongAgo;
    let discarded = |row: &Row| row.job.discard(Rules::ALL).filter(|_| is_selected(row));
    let newest = all.iter().filter(|row| discarded(row).is_some()).map(|row| row.number).max();
    let discarded = |row: &Row| discarded(row).filter(|_| Some(row.number) != newest);
    let statement = async || {
        let expected = all.iter().filter_map(discarded).count();
        let mut tx = world.begin().await;
        let count = replays::discard(&mut tx, &selection, expected as i64).await?;
        tx.commit().await?;
        Ok((count != expected as u64).then(|| format!("{count} discarded, not {expected}")).into_iter().collect())
    };
    world.check(&all, |row| discarded(row).into(), statement).await
}

/// A dead letter that another session replays meanwhile is not discarded.
pub(super) async fn discard_during_replay(world: &World) -> Vec<String> {
    let job = Job { status: Status::Killed, ..Job::new(Due::Now, false) };
    let all = rows([job]);
    world.write(&all).await;
    let selection = Selection { queue: QUEUE.into(), ..Selection::default() };
    let statement = async || {
        let mut tx = world.begin().await;
        let replay = "UPDATE apalis.jobs SET status = 'Pending' WHERE id = ANY($1)";
        let discard = replays::discard(&mut tx, &selection, 10);
        let (count, _) = world.while_locked(&[&*all[0].id], Some(replay), discard).await?;
        tx.commit().await?;
        Ok(if count == 0 { Vec::new() } else { vec![format!("{count} discarded")] })
    };
    let replayed = Job { status: Status::Pending, ..job };
    world.check(&all, |_| Expected::Job(replayed), statement).await
}

/// The names of all paused queues.
async fn paused(world: &World) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar("SELECT name FROM paused_queues").fetch_all(once(&world.direct)).await
}

/// Each order names one queue; the others stay as they are.
pub(super) async fn pause(world: &World) -> Vec<String> {
    let mut wrong = Vec::new();
    let order = Order::new("operator", Via::Cli, "a test").expect("an order");
    for queue in [QUEUE, "open", "paused", "paused until later", "paused until now"] {
        let was_paused = ["paused", "paused until later"].contains(&queue);
        let others = ["paused", "paused until later"].into_iter().filter(|other| *other != queue).map(str::to_owned);
        let others: Vec<String> = others.collect();
        world.write(&[]).await;
        world.execute(PAUSES).await;
        world.execute("UPDATE queues SET paused_at = paused_at - interval '1 day'").await;
        let result: sqlx::Result<Vec<String>> = async {
            let mut wrong = Vec::new();
            let past = Some(OffsetDateTime::UNIX_EPOCH);
            let refused = sql::pause(once(&world.subject), queue, past, None, &order).await?;
            wrong.extend(refused.map(|_| format!("{queue}: paused, although the end of the pause is past")));
            sql::pause(once(&world.subject), queue, None, None, &order).await?;
            let expected = others.iter().cloned().chain([queue.to_owned()]);
            wrong.extend(differences("paused", paused(world).await?, expected));
            let since = "SELECT paused_at > now() - interval '1 hour' FROM queues WHERE name = $1";
            let is_new: bool = sqlx::query_scalar(since).bind(queue).fetch_one(once(&world.direct)).await?;
            wrong.extend((is_new == was_paused).then(|| format!("{queue}: its pause began at a wrong time")));
            let resumed =
                [sql::resume(once(&world.subject), queue).await?, sql::resume(once(&world.subject), queue).await?];
            wrong.extend((resumed != [true, false]).then(|| format!("{queue}: resumed {resumed:?}")));
            wrong.extend(differences("paused", paused(world).await?, others));
            Ok(wrong)
        }
        .await;
        wrong.extend(result.unwrap_or_else(|error| vec![format!("the statement failed: {error}")]));
    }
    wrong
}

/// The number of jobs of one batch.
const BATCH: i64 = 50;

pub(super) async fn delete_expired(world: &World) -> Vec<String> {
    let all = rows(jobs(&[Column::Ended]).repeat(2));
    world.write(&all).await;
    // Expired jobs are left out on both sides of the range: next to its begin, and more than a batch after its end.
    let is_expired = |row: &Row| row.job.is_expired(Rules::ALL);
    let first = all.iter().position(is_expired).expect("an expired job");
    let last = all.iter().rev().skip(BATCH as usize + 1).find(|row| is_expired(row)).expect("an expired job").number;
    let (after, before) = (&*all[first].id, &*format!("{}-", all[last - 1].id));
    let is_locked = |row: &Row| row.number.is_multiple_of(5);
    let is_deleted = |row: &Row| row.number > first && row.number < last && is_expired(row) && !is_locked(row);
    let expected = |row: &Row| if is_deleted(row) { Expected::Deleted } else { Expected::Unchanged };
    let statement = async || {
        let [done, dead] = RETENTION.map(Duration::from_secs_f64);
        let delete = async {
            let (mut upto, mut deleted, mut wrong) = (after.to_owned(), 0, Vec::new());
            for batch in 1.. {
                let step = store::delete_expired(&world.subject, &upto, before, BATCH, done, dead).await?;
                let Some(step) = step else { return Ok(vec!["another session deletes".into()]) };
                let covered = all.iter().filter(|row| row.id > upto && row.id <= step.upto);
                let covered = covered.filter(|row| is_deleted(row)).count() as i64;
                wrong.extend((step.forgotten != covered).then(|| format!("{} deleted, not {covered}", step.forgotten)));
                deleted += covered;
                upto = step.upto;
                if upto == before || batch > all.len() {
                    break;
                }
            }
            wrong.extend((deleted == 0).then(|| "nothing expired".to_owned()));
            Ok::<Vec<String>, sqlx::Error>(wrong)
        };
        let locked: Vec<&str> = all.iter().filter(|row| is_locked(row)).map(|row| &*row.id).collect();
        let (wrong, waited) = world.while_locked(&locked, None, delete).await?;
        Ok([wrong, waited_for_lock(waited)].concat())
    };
    world.check(&all, expected, statement).await
}

/// One process deletes at a time.
pub(super) async fn delete_expired_elsewhere(world: &World) -> Vec<String> {
    let all = rows(jobs(&[Column::Ended]));
    world.write(&all).await;
    let statement = async || {
        let mut other = runtime::executor::begin(&world.direct).await?;
        // The cleaner's lock.
        sqlx::query("SELECT pg_advisory_xact_lock(30796686858281315)").execute(&mut other).await?;
        let [done, dead] = RETENTION.map(Duration::from_secs_f64);
        let step = store::delete_expired(&world.subject, "", "z", BATCH, done, dead).await?;
        Ok(step.map(|step| format!("{step:?}")).into_iter().collect())
    };
    world.check(&all, |_| Expected::Unchanged, statement).await
}
