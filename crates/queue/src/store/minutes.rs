//! The SQL of `queue_minutes`: what happened in each queue, by process and minute.

use sqlx::{PgExecutor, Result};

use crate::counts::{Event, Taken};

/// Adds counts of a process to the current minute of the database's clock.
pub(crate) async fn add(executor: impl PgExecutor<'_>, process: &str, taken: &[Taken]) -> Result<()> {
    let column = |event| -> Vec<i64> { taken.iter().map(|taken| taken.count(event)).collect() };
    let queues: Vec<String> = taken.iter().map(|taken| taken.queue.clone()).collect();
    // PostgreSQL has no array of arrays of different lengths, so each list of buckets is passed as text: {1,2,3}.
    let buckets = |of: fn(&Taken) -> &Vec<i64>| -> Vec<String> {
        let list = |counts: &Vec<i64>| counts.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
        taken.iter().map(|taken| format!("{{{}}}", list(of(taken)))).collect()
    };
    sqlx::query!(
        "INSERT INTO queue_minutes AS kept
             (queue, minute, process, enqueued, started, done, retried, snoozed, dead, cancelled, rescued, fenced, run_us, waits, runs)
         SELECT queue, date_trunc('minute', now()), $1, enqueued, started, done, retried, snoozed, dead, cancelled, rescued,
                fenced, run_us, waits::bigint[], runs::bigint[]
         FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[],
                     $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::text[], $14::text[])
              AS new (queue, enqueued, started, done, retried, snoozed, dead, cancelled, rescued, fenced, run_us, waits, runs)
         ON CONFLICT (queue, minute, process) DO UPDATE
         SET enqueued = kept.enqueued + excluded.enqueued, started = kept.started + excluded.started,
             done = kept.done + excluded.done, retried = kept.retried + excluded.retried,
             snoozed = kept.snoozed + excluded.snoozed, dead = kept.dead + excluded.dead,
             cancelled = kept.cancelled + excluded.cancelled, rescued = kept.rescued + excluded.rescued,
             fenced = kept.fenced + excluded.fenced,
             run_us = kept.run_us + excluded.run_us,
             waits = ARRAY(SELECT old + new FROM unnest(kept.waits, excluded.waits) AS sums (old, new)),
             runs = ARRAY(SELECT old + new FROM unnest(kept.runs, excluded.runs) AS sums (old, new))",
        process,
        &queues,
        &column(Event::Enqueued),
        &column(Event::Started),
        &column(Event::Done),
        &column(Event::Retried),
        &column(Event::Snoozed),
        &column(Event::Dead),
        &column(Event::Cancelled),
        &column(Event::Rescued),
        &column(Event::Fenced),
        &taken.iter().map(|taken| taken.run_us).collect::<Vec<_>>(),
        &buckets(|taken| &taken.waits),
        &buckets(|taken| &taken.runs),
    )
    .execute(executor)
    .await?;
    Ok(())
}
