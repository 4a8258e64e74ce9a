//! SQL of new transactions: their rows and jobs in one statement, with ids that it makes from the database's time.

use std::time::Duration;

use sqlx::PgExecutor;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::transactions::{
    model::{NewTransaction, Status, Transaction},
    process::{self, ProcessTransaction},
    webhook::Webhook,
};
use queue::{Job, JobId};
use runtime::{error::Error, telemetry::traces::span::Span};

/// A transaction that was inserted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inserted {
    pub id: Uuid,
    created_at: OffsetDateTime,
}

impl Inserted {
    /// The transaction, whose job is due after `delay`.
    pub(crate) fn transaction(self, webhook: &Webhook, delay: Duration) -> Transaction {
        let NewTransaction { transaction_id, source_account, destination_account, amount, currency } =
            webhook.new.clone();
        Transaction {
            id: self.id,
            transaction_id,
            source_account,
            destination_account,
            amount,
            currency,
            status: Status::Processing,
            error: None,
            created_at: self.created_at,
            processed_at: None,
            remaining: delay,
            trace_id: webhook.trace_id(),
            correlation_id: webhook.origin.correlation_id.clone(),
            sender: webhook.sender.name().cloned(),
        }
    }
}

/// Webhooks whose transactions and jobs are inserted.
pub(crate) struct Insertion<'w> {
    webhooks: &'w [&'w Webhook],
    /// The spans of enqueuing; empty while traces are not exported.
    spans: &'w [Span],
    /// The indexes of the webhooks in the order of their ids.
    order: Vec<usize>,
    ids: SecondHalves,
}

impl<'w> Insertion<'w> {
    /// `spans` has the span of each webhook's job, or none.
    pub(crate) fn new(webhooks: &'w [&'w Webhook], spans: &'w [Span]) -> Self {
        let mut order: Vec<usize> = (0..webhooks.len()).collect();
        // The sort is stable: of several with one id, the first stays the first.
        order.sort_by_key(|index| &webhooks[*index].new.transaction_id);
        Self { webhooks, spans, order, ids: SecondHalves::random() }
    }

    /// One value of each webhook, in the order of the rows.
    fn column<T>(&self, value: impl Fn(&'w Webhook) -> T) -> Vec<T> {
        self.order.iter().map(|index| value(self.webhooks[*index])).collect()
    }

    fn text(&self, value: fn(&NewTransaction) -> &str) -> Vec<&'w str> {
        self.column(|webhook| value(&webhook.new))
    }

    /// What the job of a webhook belongs to: its span, or else the request.
    fn traceparent(&self, index: usize) -> Option<String> {
        let span = self.spans.get(index).and_then(Span::traceparent);
        span.or_else(|| self.webhooks[index].origin.traceparent.clone())
    }

    /// Inserts the transactions whose ids are new, each with its job, in one statement: that needs one round trip instead of
    /// four, and a webhook takes 0.7 ms instead of 1.0. Returns one for each webhook, in their order; `None` for those whose ids
    /// were known. Of several with one id, the first is inserted.
    ///
    /// The rows are inserted in the order of their ids, so that concurrent batches with shared ids cannot deadlock.
    ///
    /// The internal ids are UUIDs of version 7, from the same `now()` as `created_at`. So they are in the order of
    /// creation, independent of the clocks of the processes. A new id goes to the end of the primary key. The first 48 bits
    /// are the milliseconds. `rand_a` holds the rest of the time in 4096ths of a millisecond (RFC 9562, section 6.2, method
    /// 3). Both are truncated with integer arithmetic, never rounded. The [second half](SecondHalves) comes from here.
    ///
    /// A job has the id of its transaction, written as a ULID: 26 digits of 5 bits, after two zero bits. The first 13 are those
    /// of the first half of the UUID without its last bit. That bit and the first four of the second half are the 14th one.
    pub(crate) async fn execute(
        &self,
        executor: impl PgExecutor<'_>,
        delay: Duration,
        fair_by_sender: bool,
    ) -> Result<Vec<Option<Inserted>>, Error> {
        let amounts = self.column(|webhook| webhook.new.amount.to_string());
        let traceparents: Vec<Option<String>> = self.order.iter().map(|index| self.traceparent(*index)).collect();
        let fair_keys: Vec<Option<i64>> =
            self.column(|webhook| fair_by_sender.then(|| webhook.sender.fair_key().number()));
        let (halves, digits): (Vec<String>, Vec<String>) =
            (0..self.order.len()).map(|row| (self.ids.hex(row), self.ids.digits(row))).unzip();
        let inserted = queue::query_with_jobs!(
            r#"WITH first_half AS MATERIALIZED (
                   SELECT lpad(to_hex(bits), 16, '0') AS hex,
                          (SELECT string_agg(
                                      substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', ((bits >> place) & 31)::int4 + 1, 1), ''
                                      ORDER BY place DESC)
                           FROM generate_series(1, 61, 5) AS place)
                          || CASE bits & 1 WHEN 0 THEN '8' ELSE 'R' END AS digits
                   FROM (SELECT ((us / 1000) << 16) | x'7000'::int8 | (us % 1000 * 4096 / 1000) AS bits
                         FROM (SELECT (extract(epoch FROM now()) * 1000000)::int8 AS us) AS clock) AS clock),
               new AS MATERIALIZED (
                   SELECT (hex || second_hex)::uuid AS id, digits || second_digits AS job_id, given.*
                   FROM first_half CROSS JOIN
                        unnest($1::text[], $2::text[], $3::text[], $4::text[]::numeric[], $5::text[], $6::text[], $7::uuid[],
                               $8::text[], $9::text[], $10::int8[], $11::text[], $12::text[])
                        AS given (transaction_id, source_account, destination_account, amount, currency, correlation_id,
                                  trace_id, sender, traceparent, fair_key, second_hex, second_digits)),
               inserted AS (
                   INSERT INTO transactions (id, transaction_id, source_account, destination_account, amount, currency,
                                             created_at, due_at, correlation_id, trace_id, sender)
                   SELECT id, transaction_id, source_account, destination_account, amount, currency,
                          now(), now() + make_interval(secs => $13), correlation_id, trace_id, sender
                   FROM new
                   ON CONFLICT (transaction_id) DO NOTHING
                   RETURNING id)
               "#,
            r#"(SELECT job_id AS id, $14::text AS queue,
                       convert_to(replace($15, '00000000-0000-0000-0000-000000000000', new.id::text), 'UTF8') AS payload,
                       0 AS priority, NULL::timestamptz AS at, $13 AS delay, correlation_id, traceparent, NULL::text AS key,
                       fair_key
                FROM inserted JOIN new USING (id)) AS job"#,
            " RETURNING id, now() AS \"created_at!\"",
            &self.text(|new| &new.transaction_id) as &[&str],
            &self.text(|new| &new.source_account) as &[&str],
            &self.text(|new| &new.destination_account) as &[&str],
            &amounts,
            &self.text(|new| &new.currency) as &[&str],
            &self.column(|webhook| webhook.origin.correlation_id.as_deref()) as &[Option<&str>],
            &self.column(Webhook::trace_id) as &[Option<Uuid>],
            &self.column(|webhook| webhook.sender.name().map(|name| &**name)) as &[Option<&str>],
            &traceparents as &[Option<String>],
            &fair_keys as &[Option<i64>],
            &halves,
            &digits,
            delay.as_secs_f64(),
            ProcessTransaction::NAME,
            process::payload_of(Uuid::nil())?,
        )
        .fetch_all(executor)
        .await?;
        let mut result = vec![None; self.webhooks.len()];
        for job in inserted {
            let id = Uuid::from(JobId::parse(&job.id));
            let index = self.ids.row(id).and_then(|row| self.order.get(row)).copied();
            let index =
                index.ok_or_else(|| Error::Internal(format!("the database returned an unknown id: {}", job.id)))?;
            result[index] = Some(Inserted { id, created_at: job.created_at });
        }
        Ok(result)
    }
}

/// The second halves of the ids of one statement: the two bits of the variant, two zeros, 44 random bits that all share, and the
/// number of the row. Random bits for each row took 1.7 µs a row more, of 7 µs.
struct SecondHalves(u64);

impl SecondHalves {
    fn random() -> Self {
        let (_, random) = Uuid::new_v4().as_u64_pair();
        Self(random & 0x0FFF_FFFF_FFFF_0000 | 0x8000_0000_0000_0000)
    }

    fn half(&self, row: usize) -> u64 {
        // At most as many rows as a batch has, which 16 bits hold.
        self.0 | row as u64
    }

    /// The half as a UUID writes it.
    fn hex(&self, row: usize) -> String {
        format!("{:016x}", self.half(row))
    }

    /// The last 12 digits of the ULID: all of the half except its first four bits.
    fn digits(&self, row: usize) -> String {
        JobId::from(Uuid::from_u64_pair(0, self.half(row))).to_string().split_off(14)
    }

    /// The row whose id this is.
    fn row(&self, id: Uuid) -> Option<usize> {
        usize::try_from(id.as_u64_pair().1 ^ self.0).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_and_digits_are_parts_of_the_ids() {
        let ids = SecondHalves::random();
        for (row, first) in
            [(0, 0x0199_7412_776f_7ed2_u64), (1, 0x0199_7412_776f_7ed3), (65_535, 0x0199_7412_776f_7000)]
        {
            let id: Uuid = format!("{first:016x}{}", ids.hex(row)).parse().unwrap();
            assert_eq!((id.get_variant(), id.get_version_num()), (uuid::Variant::RFC4122, 7));
            let job = JobId::from(id).to_string();
            assert!(job.ends_with(&ids.digits(row)), "{job}");
            assert_eq!(&job[13..14], if first & 1 == 0 { "8" } else { "R" });
            assert_eq!(ids.row(id), Some(row));
        }
    }
}
