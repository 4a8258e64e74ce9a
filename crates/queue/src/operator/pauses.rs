//! Pausing and resuming queues.

use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Operator, audit::Order, duration::parse_duration};
use crate::{
    metrics,
    store::operator::{self as sql, audit},
};
use runtime::error::Error;

impl Operator {
    /// Stops all claims of a queue at once; running jobs go on. With `until` the queue resumes by itself then. For a
    /// paused queue only the reason, the actor and the end change. Returns `false` if the queue is unknown: no job kind
    /// of this process, no worker and no job has its name.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn pause(&self, queue: &str, until: Option<OffsetDateTime>, order: &Order) -> Result<bool, Error> {
        let mut tx = self.queue.begin().await?;
        if !metrics::queue_names().iter().any(|known| known == queue) && !sql::queue_exists(&mut *tx, queue).await? {
            return Ok(false);
        }
        sql::pause(&mut *tx, queue, until, order).await?;
        let filter = until.map(|until| json!({"until": until.format(&Rfc3339).unwrap_or_default()}));
        audit::record(&mut *tx, order, "pause", queue, filter, 1).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Resumes a queue at once. Returns whether it was paused.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn resume(&self, queue: &str, order: &Order) -> Result<bool, Error> {
        let mut tx = self.queue.begin().await?;
        if !sql::resume(&mut *tx, queue).await? {
            return Ok(false);
        }
        audit::record(&mut *tx, order, "resume", queue, None, 1).await?;
        tx.commit().await?;
        Ok(true)
    }
}

/// Parses the end of a pause: a time in RFC 3339, or a duration from now such as `30m`, `2h` or `1d`.
///
/// # Errors
/// When the text is neither, or the time is not after now. The text says what would be right.
pub fn parse_until(text: &str, now: OffsetDateTime) -> Result<OffsetDateTime, String> {
    let relative = parse_duration(text).ok().and_then(|duration| now.checked_add(duration));
    let at = relative.or_else(|| OffsetDateTime::parse(text, &Rfc3339).ok());
    match at {
        Some(at) if at > now => Ok(at),
        Some(_) => Err("must be after now".into()),
        None => Err("must be a time such as 2026-12-01T14:00:00Z, or a duration such as 30m, 2h or 1d".into()),
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn the_end_of_a_pause_is_a_time_or_a_duration() {
        let now = datetime!(2026-11-28 12:00 UTC);
        for (text, end) in [
            ("30m", datetime!(2026-11-28 12:30 UTC)),
            ("2h", datetime!(2026-11-28 14:00 UTC)),
            ("1d", datetime!(2026-11-29 12:00 UTC)),
            ("2026-11-28T13:00:00+00:30", datetime!(2026-11-28 12:30 UTC)),
        ] {
            assert_eq!(parse_until(text, now), Ok(end), "{text}");
        }
        for text in ["", "m", "-1h", "2 h", "4294967296d", "2026-11-28", "2026-11-28T12:00:00Z", "0s", "1é"] {
            assert!(parse_until(text, now).is_err(), "{text}");
        }
    }
}
