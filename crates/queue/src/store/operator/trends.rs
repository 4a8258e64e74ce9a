//! The SQL of trends: what happened in a queue by steps of time, and marks.

use sqlx::Result;

use crate::ReadTime;
use runtime::{db::Pool, executor::repeatable};

/// What happened in one step, in all processes.
pub(crate) struct PointRow {
    pub at: ReadTime,
    pub enqueued: i64,
    /// Runs that ended with their job waiting again: failed or snoozed.
    pub again: i64,
    pub started: i64,
    pub dead: i64,
    /// Jobs that ended: done, dead or cancelled.
    pub gone: i64,
    /// Runs by how long they had waited; the buckets are [`BUCKETS`](crate::counts::BUCKETS).
    pub waits: Vec<i64>,
}

/// Reads the last `count` steps of `step` seconds of a queue, oldest first, also those in which nothing happened. Steps of
/// whole hours are read from `queue_hours` as far as these are finished and summed, because 14 days of five processes are
/// 100,000 minutes, which take 557 ms.
pub(crate) async fn points(pool: &Pool, queue: &str, step: u32, count: u32) -> Result<Vec<PointRow>> {
    sqlx::query_as!(
        PointRow,
        r#"WITH frame AS (
               SELECT date_bin(make_interval(secs => $2::float8), now(), 'epoch') - make_interval(secs => $2::float8 * ($3::float8 - 1)) AS start
           ), summed AS (
               SELECT CASE WHEN $2::float8 >= 3600 THEN (SELECT max(hour) + interval '1 hour' FROM queue_hours
                                                            WHERE queue = $1 AND hour < date_trunc('hour', now() - interval '10 minutes', 'UTC')) END AS upto
           ), counts AS (
               SELECT hour AS minute, enqueued, retried, snoozed, started, done, dead, cancelled, waits
               FROM frame, summed, queue_hours WHERE queue = $1 AND hour >= frame.start AND hour < summed.upto
               UNION ALL
               SELECT minute, enqueued, retried, snoozed, started, done, dead, cancelled, waits
               FROM frame, summed, queue_minutes WHERE queue = $1 AND minute >= greatest(frame.start, summed.upto)
           ), kept AS (
               SELECT date_bin(make_interval(secs => $2::float8), minute, 'epoch') AS at, sum(enqueued) AS enqueued, sum(retried + snoozed) AS again,
                      sum(started) AS started, sum(dead) AS dead, sum(done + dead + cancelled) AS gone,
                      ARRAY[sum(waits[1]), sum(waits[2]), sum(waits[3]), sum(waits[4]), sum(waits[5]), sum(waits[6]), sum(waits[7]),
                            sum(waits[8]), sum(waits[9]), sum(waits[10]), sum(waits[11]), sum(waits[12]), sum(waits[13]), sum(waits[14]),
                            sum(waits[15])]::bigint[] AS waits
               FROM counts GROUP BY 1
           )
           SELECT step.at AS "at!: ReadTime", coalesce(enqueued, 0)::bigint AS "enqueued!", coalesce(again, 0)::bigint AS "again!",
                  coalesce(started, 0)::bigint AS "started!", coalesce(dead, 0)::bigint AS "dead!", coalesce(gone, 0)::bigint AS "gone!",
                  coalesce(array_replace(waits, NULL, 0), '{}') AS "waits!"
           FROM frame CROSS JOIN LATERAL generate_series(frame.start, now(), make_interval(secs => $2::float8)) AS step (at)
           LEFT JOIN kept ON kept.at = step.at
           ORDER BY step.at"#,
        queue,
        f64::from(step),
        f64::from(count),
    )
    .fetch_all(repeatable(pool))
    .await
}

/// A release, or an action on the queue.
pub(crate) struct MarkRow {
    pub at: ReadTime,
    pub kind: String,
    pub actor: Option<String>,
    /// The version or the reason.
    pub text: String,
    pub count: i64,
}

/// Reads the releases and actions of the same time, oldest first: of the newest 50 releases, the newest 500 actions on the
/// queue, and the newest 500 replays of all queues. The action that starts a replay has the replay as its target.
pub(crate) async fn marks(pool: &Pool, queue: &str, step: u32, count: u32) -> Result<Vec<MarkRow>> {
    sqlx::query_as!(
        MarkRow,
        r#"WITH frame AS (
               SELECT date_bin(make_interval(secs => $2::float8), now(), 'epoch') - make_interval(secs => $2::float8 * ($3::float8 - 1)) AS start
           ), released AS (
               SELECT at, version FROM worker_releases ORDER BY at DESC LIMIT 50
           ), acted AS (
               (SELECT at, action, actor, reason, count FROM operator_actions WHERE target = $1 ORDER BY id DESC LIMIT 500)
               UNION ALL
               SELECT begun.at, begun.action, begun.actor, begun.reason, begun.count
               FROM (SELECT id, queue FROM replays ORDER BY id DESC LIMIT 500) AS newest
               CROSS JOIN LATERAL (
                   SELECT at, action, actor, reason, count FROM operator_actions
                   WHERE target = newest.id::text AND action = 'replay' ORDER BY operator_actions.id LIMIT 1
               ) AS begun
               WHERE newest.queue = $1
           )
           SELECT at AS "at!: ReadTime", kind AS "kind!", actor, text AS "text!", count AS "count!"
           FROM (SELECT at, 'release' AS kind, NULL AS actor, version AS text, 1::bigint AS count FROM released
                 UNION ALL
                 SELECT at, action, actor, reason, count FROM acted WHERE action IN ('pause', 'resume', 'replay', 'discard')) AS mark
           WHERE at >= (SELECT start FROM frame)
           ORDER BY at"#,
        queue,
        f64::from(step),
        f64::from(count),
    )
    .fetch_all(repeatable(pool))
    .await
}
