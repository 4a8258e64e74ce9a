//! SQL of conflicting webhooks: stores the first payloads of each id, and counts all of them.

use std::time::Duration;

use crate::transactions::{
    model::Conflict,
    retention::{STEP_SIZE, Step},
};
use runtime::{
    db::Pool,
    error::Error,
    executor::{begin, transactional},
};

/// The number of different payloads that are stored for one id.
const MAX_PAYLOADS: i64 = 20;

/// Records a batch of conflicts, of any size, with two statements and one commit.
///
/// The first statement locks the ids in their order, so that concurrent processes cannot deadlock. The second statement
/// therefore sees every payload that was stored before. Payloads with equal amounts are equal, even if the amounts have
/// different numbers of trailing zeros.
pub(crate) async fn record(pool: Pool, conflicts: Vec<Conflict>) -> Result<Vec<()>, Error> {
    let column = |value: fn(&Conflict) -> String| -> Vec<String> { conflicts.iter().map(value).collect() };
    let ids = column(|conflict| conflict.new.transaction_id.clone());
    let correlation_ids: Vec<Option<String>> =
        conflicts.iter().map(|conflict| conflict.correlation_id.clone()).collect();
    let mut tx = begin(&pool).await?;
    count_by_id!("webhook_conflict_totals", &ids).execute(&mut tx).await?;
    sqlx::query!(
        "WITH given AS (
             SELECT transaction_id,
                    jsonb_build_object('source_account', source, 'destination_account', destination,
                                       'amount', trim_scale(amount), 'currency', currency) AS payload,
                    fields, correlation_id, n
             FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]::numeric[], $5::text[], $6::text[], $7::text[])
                  WITH ORDINALITY
                  AS given (transaction_id, source, destination, amount, currency, fields, correlation_id, n)),
         payloads AS (
             SELECT transaction_id, payload, sha256(convert_to(payload::text, 'UTF8')) AS digest, min(fields) AS fields,
                    (array_agg(correlation_id ORDER BY n))[1] AS correlation_id, count(*) AS times, min(n) AS n
             FROM given GROUP BY transaction_id, payload),
         placed AS (
             SELECT payloads.*, known.digest IS NOT NULL AS is_known,
                    (SELECT count(*) FROM webhook_conflicts AS kept
                     WHERE kept.transaction_id = payloads.transaction_id)
                    + row_number() OVER (PARTITION BY payloads.transaction_id, known.digest IS NULL ORDER BY n) AS place
             FROM payloads LEFT JOIN webhook_conflicts AS known USING (transaction_id, digest))
         INSERT INTO webhook_conflicts (transaction_id, payload, digest, fields, times, correlation_id)
         SELECT transaction_id, payload, digest, string_to_array(fields, ', '), times, correlation_id
         FROM placed WHERE is_known OR place <= $8
         ON CONFLICT (transaction_id, digest)
         DO UPDATE SET times = webhook_conflicts.times + excluded.times, last_at = now()",
        &ids,
        &column(|conflict| conflict.new.source_account.clone()),
        &column(|conflict| conflict.new.destination_account.clone()),
        &column(|conflict| conflict.new.amount.to_string()),
        &column(|conflict| conflict.new.currency.clone()),
        &column(|conflict| conflict.fields.join(", ")),
        &correlation_ids as &[Option<String>],
        MAX_PAYLOADS,
    )
    .execute(&mut tx)
    .await?;
    tx.commit().await?;
    Ok(vec![(); conflicts.len()])
}

/// Reads the next 5,000 ids after `after`, and deletes the conflicts of those whose last conflict is older than `age`.
pub(crate) async fn delete_expired(pool: &Pool, after: String, age: Duration) -> Result<Step<String>, Error> {
    let step = sqlx::query!(
        r#"WITH step AS (
               SELECT transaction_id, last_at < now() - make_interval(secs => $2) AS is_expired
               FROM webhook_conflict_totals WHERE transaction_id > $1 ORDER BY transaction_id LIMIT $3),
           expired AS (
               DELETE FROM webhook_conflict_totals AS total USING step
               WHERE total.transaction_id = step.transaction_id AND step.is_expired
                 AND total.last_at < now() - make_interval(secs => $2)
               RETURNING total.transaction_id),
           payloads AS (
               DELETE FROM webhook_conflicts AS kept USING expired WHERE kept.transaction_id = expired.transaction_id)
           SELECT count(*) AS "read!", max(transaction_id) AS last, (SELECT count(*) FROM expired) AS "deleted!"
           FROM step"#,
        after,
        age.as_secs_f64(),
        STEP_SIZE,
    )
    .fetch_one(transactional(pool))
    .await?;
    Ok(Step::new(step.read, step.last, step.deleted))
}
