//! The SQL that reads what happened in the queues.

use sqlx::Result;

use runtime::{db::Pool, executor::repeatable};

/// What happened in one queue in one minute, in all processes.
pub(crate) struct MinuteRow {
    pub queue: String,
    /// Whether the queue had a minute before this hour.
    pub had_earlier: bool,
    /// Seconds since the minute began, by the database's clock, whose minutes these are.
    pub age: f64,
    pub enqueued: i64,
    pub started: i64,
    /// Runs that ended with their job waiting again: failed or snoozed.
    pub again: i64,
    pub dead: i64,
    pub ended: i64,
    pub run_us: i64,
}

/// Reads the last hour of one queue or of all, one row for each queue and minute, oldest first. It reads one index range
/// for each queue that has any minute. A row without the time of a run counts no end of one, but the cancellations of waiting
/// jobs.
pub(crate) async fn last_hour(pool: &Pool, queue: Option<&str>) -> Result<Vec<MinuteRow>> {
    sqlx::query_as!(
        MinuteRow,
        r#"WITH RECURSIVE known AS (
               (SELECT queue FROM queue_minutes WHERE $1::text IS NULL ORDER BY queue LIMIT 1)
               UNION ALL
               SELECT (SELECT queue FROM queue_minutes WHERE queue > known.queue ORDER BY queue LIMIT 1)
               FROM known WHERE known.queue IS NOT NULL
           )
           SELECT known.queue AS "queue!",
                  EXISTS (SELECT FROM queue_minutes AS earlier
                          WHERE earlier.queue = known.queue AND earlier.minute <= now() - interval '1 hour') AS "had_earlier!",
                  extract(epoch FROM clock_timestamp() - minute)::float8 AS "age!", sum(enqueued)::bigint AS "enqueued!",
                  sum(started)::bigint AS "started!", sum(retried + snoozed)::bigint AS "again!", sum(dead)::bigint AS "dead!",
                  coalesce(sum(done + retried + snoozed + dead + cancelled) FILTER (WHERE run_us > 0), 0)::bigint AS "ended!",
                  sum(run_us)::bigint AS "run_us!"
           FROM (SELECT queue FROM known UNION ALL SELECT $1) AS known
           JOIN queue_minutes AS kept ON kept.queue = known.queue AND minute > now() - interval '1 hour'
           GROUP BY known.queue, minute ORDER BY known.queue, minute"#,
        queue,
    )
    .fetch_all(repeatable(pool))
    .await
}

/// The latencies of one queue in the last 15 minutes, and its new dead letters of the last day.
pub(crate) struct LatencyRow {
    pub queue: String,
    /// The counts of runs by how long they had waited; the buckets are [`BUCKETS`](crate::counts::BUCKETS).
    pub waits: Vec<i64>,
    pub dead_24h: i64,
}

/// Reads the latencies of these queues. Each is in the result, with zeros if nothing ran. Only minutes in which a job died
/// are read for a day: all of them took 85 of 97 ms for four queues and eight workers.
pub(crate) async fn latencies(pool: &Pool, queues: &[String]) -> Result<Vec<LatencyRow>> {
    sqlx::query_as!(
        LatencyRow,
        r#"SELECT known.name AS "queue!",
                  (SELECT array_replace(
                              ARRAY[sum(waits[1]), sum(waits[2]), sum(waits[3]), sum(waits[4]), sum(waits[5]), sum(waits[6]),
                                    sum(waits[7]), sum(waits[8]), sum(waits[9]), sum(waits[10]), sum(waits[11]),
                                    sum(waits[12]), sum(waits[13]), sum(waits[14]), sum(waits[15])]::bigint[], NULL, 0)
                   FROM queue_minutes
                   WHERE queue = known.name AND minute > now() - interval '15 minutes') AS "waits!",
                  coalesce((SELECT sum(dead)::bigint FROM queue_minutes
                            WHERE queue = known.name AND minute > now() - interval '24 hours' AND dead > 0), 0)
                      AS "dead_24h!"
           FROM unnest($1::text[]) AS known (name)"#,
        queues,
    )
    .fetch_all(repeatable(pool))
    .await
}
