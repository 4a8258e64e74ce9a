//! URLs of transactions: the path of one transaction and the link to the next page of the list.

use jobs::transactions::Transaction;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::view::TransactionStatus;
use crate::validation::{Cursor, Limit};

/// The path of the list; a transaction's path is below it.
const PATH: &str = "/v1/transactions";
/// Percent-encodes all characters except the unreserved ones of RFC 3986. An id is always one path segment, so `/` is
/// encoded too.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The path of a transaction.
pub fn location(transaction_id: &str) -> String {
    // Most clients resolve a segment `.` or `..` as a relative path, even if it is encoded. There is no other notation;
    // encoded dots at least survive in clients that do not resolve paths.
    match transaction_id {
        "." => format!("{PATH}/%2E"),
        ".." => format!("{PATH}/%2E%2E"),
        _ => format!("{PATH}/{}", utf8_percent_encode(transaction_id, SEGMENT)),
    }
}

/// The parameters of a list request, which the link to the next page repeats.
#[derive(Debug, Clone, Copy)]
pub struct PageQuery {
    /// List only transactions with this status.
    pub status: Option<TransactionStatus>,
    /// The largest number of transactions on the page.
    pub limit: Limit,
}

impl PageQuery {
    /// The `Link` header for the page after `last`.
    pub fn next_link(&self, last: &Transaction) -> String {
        let cursor = Cursor(*last.id.as_bytes());
        let status = self.status.map(|state| format!("status={}&", state.name())).unwrap_or_default();
        format!("<{PATH}?{status}limit={}&cursor={cursor}>; rel=\"next\"", self.limit.0)
    }
}

#[cfg(test)]
mod tests {
    use jobs::transactions::Status;
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_location_has_the_id_as_one_segment() {
        for (id, path) in [
            ("txn_abc123", "/v1/transactions/txn_abc123"),
            ("a/b c?é%", "/v1/transactions/a%2Fb%20c%3F%C3%A9%25"),
            ("..", "/v1/transactions/%2E%2E"),
        ] {
            assert_eq!(location(id), path);
        }
    }

    #[test]
    fn the_next_link_repeats_the_query() {
        let last = Transaction {
            id: Uuid::now_v7(),
            transaction_id: "t".into(),
            source_account: "s".into(),
            destination_account: "d".into(),
            amount: "1".parse().expect("an amount"),
            currency: "EUR".into(),
            status: Status::Failed,
            error: None,
            created_at: OffsetDateTime::UNIX_EPOCH,
            processed_at: None,
            remaining: std::time::Duration::ZERO,
        };
        let next = Cursor(*last.id.as_bytes());
        let page = PageQuery { status: Some(TransactionStatus::Failed), limit: Limit(5) };
        assert_eq!(
            page.next_link(&last),
            format!("</v1/transactions?status=FAILED&limit=5&cursor={next}>; rel=\"next\"")
        );
        let page = PageQuery { status: None, limit: Limit(20) };
        assert_eq!(page.next_link(&last), format!("</v1/transactions?limit=20&cursor={next}>; rel=\"next\""));
    }
}
