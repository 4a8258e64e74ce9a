//! The statements of a job's way to its end: insert, claim, and the results of runs.

use std::{collections::BTreeSet, time::Duration};

use runtime::executor::once;

use super::{
    cases::{Column, STATUSES, jobs, rows},
    world::{Expected, OTHER, QUEUE, Row, World, worker},
};
use crate::{
    job::{JobId, Origin, Priority},
    low_water::Marks,
    model::{
        guard::Rules,
        row::{Due, Job, Outcome, Status, Token},
    },
    new_job::{self, NewJob},
    storable::StorableText,
    store::{
        self,
        results::{self, Next, Unfinished},
    },
};

/// More jobs than any test has.
const ALL: i64 = 1_000_000;

fn new_job(due: Due, key: Option<String>) -> NewJob {
    let wait = if due == Due::Now { Duration::ZERO } else { Duration::from_secs(60) };
    NewJob {
        id: JobId::generate(),
        queue: QUEUE,
        payload: b"{}".to_vec(),
        due: new_job::Due::After(wait),
        priority: Priority::Normal,
        origin: Origin::default(),
        key,
        fair_key: None,
    }
}

/// The row that a new job becomes.
fn new_row(new: &NewJob, due: Due) -> Row {
    Row { id: new.id.to_string(), key: new.key.clone(), ..Row::new(0, Job::new(due, new.key.is_some())) }
}

pub(super) async fn insert(world: &World) -> Vec<String> {
    let old = rows(jobs(&[]));
    world.write(&old).await;
    let due = [Due::Now, Due::Later];
    let new = due.map(|due| new_job(due, None));
    let inserted = [0, 1].map(|at| new_row(&new[at], due[at]));
    let all = [old, inserted.to_vec()].concat();
    let expected = |row: &Row| match inserted.iter().find(|new| new.id == row.id) {
        Some(new) => Expected::Job(new.job),
        None => Expected::Unchanged,
    };
    let statement = async || {
        let mut tx = world.begin().await;
        store::insert(&mut tx, &new.iter().collect::<Vec<_>>()).await?;
        tx.commit().await?;
        Ok(Vec::new())
    };
    world.check(&all, expected, statement).await
}

/// Each new key is that of another job: in each status, in the same queue or in another one. Two new jobs have one key.
pub(super) async fn insert_unique(world: &World) -> Vec<String> {
    let (mut old, mut new, mut taken) = (Vec::new(), Vec::new(), Vec::new());
    for queue in [QUEUE, OTHER] {
        for status in STATUSES {
            let row = Row::new(old.len(), Job { status, ..Job::new(Due::Now, true) });
            let row = Row { queue, ..row };
            new.push(new_job(Due::Now, row.key.clone()));
            taken.push(row.job.is_live() && queue == QUEUE);
            old.push(row);
        }
    }
    for is_taken in [false, true] {
        new.push(new_job(Due::Now, Some("a key of two jobs".into())));
        taken.push(is_taken);
    }
    world.write(&old).await;
    let free: Vec<Row> =
        new.iter().zip(&taken).filter(|(_, taken)| !**taken).map(|(new, _)| new_row(new, Due::Now)).collect();
    let all = [old, free.clone()].concat();
    let expected = |row: &Row| match free.iter().find(|new| new.id == row.id) {
        Some(new) => Expected::Job(new.job),
        None => Expected::Unchanged,
    };
    let statement = async || {
        let mut tx = world.begin().await;
        let ids = store::insert_unique(&mut tx, &new.iter().collect::<Vec<_>>()).await?;
        tx.commit().await?;
        Ok(differences("inserted", ids, free.iter().map(|row| row.id.clone())))
    };
    world.check(&all, expected, statement).await
}

/// A queue for each state of a pause, and one without a row.
pub(super) const QUEUES: [(&str, bool); 5] =
    [(QUEUE, false), ("open", false), ("paused", true), ("paused until later", true), ("paused until now", false)];

/// Writes the pauses of [`QUEUES`].
pub(super) const PAUSES: &str = "INSERT INTO queues (name, paused_at, reason, resume_at) VALUES
    ('open', NULL, NULL, NULL), ('paused', now(), 'a test', NULL),
    ('paused until later', now(), 'a test', now() + interval '1 hour'),
    ('paused until now', now() - interval '1 hour', 'a test', now() - interval '1 second')";

pub(super) async fn claim(world: &World) -> Vec<String> {
    let mut all = Vec::new();
    for (queue, _) in QUEUES {
        for job in jobs(&[Column::Due, Column::Failures, Column::Crashes]) {
            all.push(Row { queue, ..Row::new(all.len(), job) });
        }
    }
    world.write(&all).await;
    world.execute(PAUSES).await;
    let is_locked = |row: &Row| row.number.is_multiple_of(5);
    let claimed = |row: &Row| {
        let is_paused = QUEUES.contains(&(row.queue, true));
        row.job.claim(0, is_paused, Rules::ALL).filter(|_| !is_locked(row))
    };
    let statement = async || {
        let locked: Vec<&str> = all.iter().filter(|row| is_locked(row)).map(|row| &*row.id).collect();
        let claims = async {
            let mut claims = Vec::new();
            for (queue, _) in QUEUES {
                claims.extend(store::claim::claim(&world.subject, worker(0), queue, Marks::default(), ALL).await?);
            }
            Ok(claims)
        };
        let (claims, waited) = world.while_locked(&locked, None, claims).await?;
        let token = |id: &str, token, failures, crashes| format!("{id} {token} {failures} {crashes}");
        let found = claims.iter().map(|job| token(&job.id, job.token, job.failures, job.crashes)).collect();
        let expected = all
            .iter()
            .filter_map(|row| Some((row, claimed(row)?)))
            .map(|(row, job)| token(&row.id, job.attempts.into(), job.failures.into(), job.crashes.into()));
        Ok([differences("claimed", found, expected), waited_for_lock(waited)].concat())
    };
    world.check(&all, |row| claimed(row).into(), statement).await
}

/// A claim of four jobs takes those with the highest priority, and among them those that are due first.
pub(super) async fn claim_order(world: &World) -> Vec<String> {
    let mut all = Vec::new();
    for priority in [-1, 0, 1] {
        for earlier in [10.0, 20.0, 0.0] {
            let row = Row::new(all.len(), Job::new(Due::Now, false));
            all.push(Row { priority, earlier, ..row });
        }
    }
    // An index is read in its order anyway; without one, only the statement's order counts.
    world.write(&all).await;
    world.execute("DROP INDEX IF EXISTS apalis.jobs_ready").await;
    let mut order: Vec<&Row> = all.iter().collect();
    order.sort_by(|one, two| two.priority.cmp(&one.priority).then(two.earlier.total_cmp(&one.earlier)));
    let first: BTreeSet<&str> = order.iter().take(4).map(|row| &*row.id).collect();
    let expected = |row: &Row| row.job.claim(0, false, Rules::ALL).filter(|_| first.contains(&*row.id)).into();
    let statement = async || {
        let claimed = store::claim::claim(&world.subject, worker(0), QUEUE, Marks::default(), 4).await?;
        let claimed = claimed.into_iter().map(|job| job.id).collect();
        Ok(differences("claimed", claimed, first.iter().map(|id| (*id).to_owned())))
    };
    world.check(&all, expected, statement).await
}

/// Two thirds of the jobs are named. The look for due jobs leaves out the others.
pub(super) async fn claim_some(world: &World) -> Vec<String> {
    let mut all = Vec::new();
    for (queue, _) in QUEUES {
        for job in jobs(&[Column::Due]) {
            all.push(Row { queue, ..Row::new(all.len(), job) });
        }
    }
    world.write(&all).await;
    world.execute(PAUSES).await;
    let is_locked = |row: &Row| row.number.is_multiple_of(5);
    let is_named = |row: &Row| !row.number.is_multiple_of(3);
    let claimed = |row: &Row| {
        let is_paused = QUEUES.contains(&(row.queue, true));
        row.job.claim(0, is_paused, Rules::ALL).filter(|_| is_named(row) && !is_locked(row))
    };
    let statement = async || {
        let (named, left_out): (Vec<&Row>, Vec<&Row>) = all.iter().partition(|row| is_named(row));
        let ids = |rows: &[&Row]| rows.iter().map(|row| row.id.clone()).collect::<Vec<String>>();
        let due = store::claim::find_due(&world.subject, QUEUE, Marks::default(), ALL, &ids(&left_out)).await?;
        let is_due = |row: &&&Row| row.queue == QUEUE && row.job.claim(0, false, Rules::ALL).is_some();
        let expected: Vec<String> = named.iter().filter(is_due).map(|row| row.id.clone()).collect();
        let count = (due.len() != expected.len()).then(|| format!("{} found, not {}", due.len(), expected.len()));
        let found = differences("found", due, expected);
        let locked: Vec<&str> = all.iter().filter(|row| is_locked(row)).map(|row| &*row.id).collect();
        let claims = async {
            let mut claims = Vec::new();
            for (queue, _) in QUEUES {
                let jobs = store::claim::claim_some(&world.subject, worker(0), queue, &ids(&named)).await?;
                claims.extend(jobs.into_iter().map(|job| job.id));
            }
            Ok(claims)
        };
        let (claims, waited) = world.while_locked(&locked, None, claims).await?;
        let expected = all.iter().filter(|row| claimed(row).is_some()).map(|row| row.id.clone());
        Ok([found, differences("claimed", claims, expected), waited_for_lock(waited), Vec::from_iter(count)].concat())
    };
    world.check(&all, |row| claimed(row).into(), statement).await
}

/// Runs of worker a: each row with tokens that are too old, right, or never given.
pub(super) fn done_runs() -> (Vec<Row>, Vec<Token>) {
    let cases: Vec<(Job, Token)> = jobs(&[Column::Due, Column::Ended])
        .into_iter()
        .flat_map(|job| (0..=3).map(move |attempt| (job, Token { worker: 0, attempt })))
        .collect();
    (rows(cases.iter().map(|(job, _)| *job)), cases.into_iter().map(|(_, token)| token).collect())
}

pub(super) fn ids_and_tokens(rows: &[Row], tokens: &[Token]) -> (Vec<String>, Vec<i32>) {
    rows.iter().map(|row| (row.id.clone(), i32::from(tokens[row.number].attempt))).unzip()
}

pub(super) async fn finish(world: &World) -> Vec<String> {
    let (all, tokens) = done_runs();
    world.write(&all).await;
    let finished = |row: &Row| row.job.write(tokens[row.number], Outcome::Done, false, Rules::ALL);
    let statement = async || {
        let (ids, tokens) = ids_and_tokens(&all, &tokens);
        let count = results::finish(once(&world.subject), worker(0), &ids, &tokens).await?;
        let expected = all.iter().filter_map(finished).count();
        Ok(if count == expected as u64 { Vec::new() } else { vec![format!("{count} finished, not {expected}")] })
    };
    world.check(&all, |row| finished(row).into(), statement).await
}

/// The reads that tell which results were written, and which runs still hold their jobs.
pub(super) async fn find_runs(world: &World) -> Vec<String> {
    let (all, tokens) = done_runs();
    world.write(&all).await;
    let statement = async || {
        let (ids, numbers) = ids_and_tokens(&all, &tokens);
        let finished = results::find_finished(once(&world.subject), worker(0), &ids, &numbers).await?;
        let held = results::find_held(&world.subject, worker(0), &ids, &numbers).await?;
        let matches = |row: &&Row, status| {
            row.job.status == status && Job { status: Status::Running, ..row.job }.is_held_by(tokens[row.number])
        };
        let expected =
            |status| all.iter().filter(move |row| matches(row, status)).map(|row| row.id.clone()).collect::<Vec<_>>();
        let finished = differences("found finished", finished, expected(Status::Done));
        Ok([finished, differences("found held", held, expected(Status::Running))].concat())
    };
    world.check(&all, |_| Expected::Unchanged, statement).await
}

pub(super) async fn lock_free(world: &World) -> Vec<String> {
    let all = rows(jobs(&[]));
    world.write(&all).await;
    let ids = |rest: usize| all.iter().filter(move |row| row.number % 3 == rest).map(|row| row.id.clone());
    let locked: Vec<String> = ids(0).collect();
    let statement = async || {
        let wanted: Vec<String> = ids(0).chain(ids(1)).collect();
        let mut tx = world.begin().await;
        let locked: Vec<&str> = locked.iter().map(String::as_str).collect();
        let (free, waited) = world.while_locked(&locked, None, results::lock_free(&mut tx, &wanted)).await?;
        // What it has locked, no claim takes.
        let claimed = store::claim::claim(&world.subject, worker(0), QUEUE, Marks::default(), ALL).await?;
        let claimed: Vec<String> = claimed.into_iter().map(|job| job.id).filter(|id| free.contains(id)).collect();
        Ok([differences("locked", free, ids(1)), differences("claimed", claimed, []), waited_for_lock(waited)].concat())
    };
    let claimed = |row: &Row| row.job.claim(0, false, Rules::ALL).filter(|_| row.number % 3 != 1);
    world.check(&all, |row| claimed(row).into(), statement).await
}

/// A run that is not done: the job, the token, the outcome, and whether the run survived.
type Unended = (Job, Token, Outcome, bool);

fn unended_runs() -> Vec<Unended> {
    let mut runs = Vec::new();
    for job in jobs(&[Column::Crashes, Column::Due]) {
        for attempt in [1, 2] {
            for outcome in Outcome::ALL.into_iter().filter(|outcome| *outcome != Outcome::Done) {
                // Only retries and snoozes say that the run survived, and of a quarantined job they do not.
                let may_survive = matches!(outcome, Outcome::Retry | Outcome::Snooze);
                let token = Token { worker: 0, attempt };
                runs.extend((0..=u8::from(may_survive)).map(|survived| (job, token, outcome, survived == 1)));
            }
        }
    }
    runs
}

fn unfinished(all: &[Row], runs: &[Unended]) -> Unfinished {
    let error = StorableText::from("failed");
    let wait = Duration::from_secs(60);
    let mut unfinished = Unfinished::default();
    for row in all {
        let (_, token, outcome, survived) = runs[row.number];
        let next = match outcome {
            Outcome::Retry => Next::Wait { wait, error: Some(&error), reason: None },
            Outcome::Snooze => Next::Wait { wait, error: None, reason: None },
            Outcome::Dead => Next::Dead { error: &error },
            Outcome::Cancelled => Next::Cancelled { error: &error },
            Outcome::GivenBack | Outcome::Done => Next::GiveBack,
        };
        unfinished.push(&row.id, token.attempt.into(), 2, survived, next);
    }
    unfinished
}

pub(super) async fn put_back(world: &World) -> Vec<String> {
    let runs = unended_runs();
    let all = rows(runs.iter().map(|(job, ..)| *job));
    world.write(&all).await;
    let written = |row: &Row| {
        let (job, token, outcome, survived) = runs[row.number];
        job.write(token, outcome, survived, Rules::ALL)
    };
    let statement = async || {
        let ids = results::put_back(once(&world.subject), worker(0), &unfinished(&all, &runs)).await?;
        let expected = all.iter().filter(|row| written(row).is_some()).map(|row| row.id.clone());
        let counted: i64 = sqlx::query_scalar("SELECT coalesce(sum(cancelled), 0)::int8 FROM queues")
            .fetch_one(once(&world.direct))
            .await?;
        let cancelled = all.iter().filter_map(written).filter(|job| job.status == Status::Cancelled).count();
        let counts =
            if counted == cancelled as i64 { None } else { Some(format!("{counted} cancelled, not {cancelled}")) };
        Ok(differences("written", ids, expected).into_iter().chain(counts).collect())
    };
    world.check(&all, |row| written(row).into(), statement).await
}

/// Results whose jobs are rescued at the same moment: each write waits for the rescue, and then changes nothing.
pub(super) async fn results_during_rescue(world: &World) -> Vec<String> {
    let job = Job { status: Status::Running, holder: Some(0), attempts: 1, ..Job::new(Due::Now, false) };
    let token = Token { worker: 0, attempt: 1 };
    let mut found = Vec::new();
    for outcome in Outcome::ALL {
        let all = rows([job]);
        world.write(&all).await;
        let statement = async || {
            let (ids, tokens) = ids_and_tokens(&all, &[token]);
            let runs = [(job, token, outcome, false)];
            let write = async {
                if outcome == Outcome::Done {
                    return results::finish(once(&world.subject), worker(0), &ids, &tokens).await;
                }
                let written = results::put_back(once(&world.subject), worker(0), &unfinished(&all, &runs)).await?;
                Ok(written.len() as u64)
            };
            let rescue = "UPDATE apalis.jobs SET status = 'Pending' WHERE id = ANY($1)";
            let (written, waited) = world.while_locked(&[&*all[0].id], Some(rescue), write).await?;
            let is_right = written == 0 && waited;
            Ok(if is_right { Vec::new() } else { vec![format!("{outcome:?}: written {written}, waited {waited}")] })
        };
        let rescued = Job { status: Status::Pending, ..job };
        found.extend(world.check(&all, |_| Expected::Job(rescued), statement).await);
    }
    found
}

/// The ids that are found but not expected, or expected but not found.
pub(super) fn differences(what: &str, found: Vec<String>, expected: impl IntoIterator<Item = String>) -> Vec<String> {
    let (found, expected): (BTreeSet<String>, BTreeSet<String>) =
        (found.into_iter().collect(), expected.into_iter().collect());
    let missing = expected.difference(&found).map(|id| format!("not {what}: {id}"));
    missing.chain(found.difference(&expected).map(|id| format!("{what}: {id}"))).collect()
}

pub(super) fn waited_for_lock(waited: bool) -> Vec<String> {
    if waited { vec!["it waited for a row that another session has locked".into()] } else { Vec::new() }
}
