//! Pages of the list: the cursor, the link to the next page, and the path of one transaction.

use jobs::transactions::Transaction;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::view::State;
use crate::validation::{Cursor, Limit};

/// Where one transaction and the list of all are found.
const PATH: &str = "/v1/transactions";
/// Everything but what RFC 3986 calls unreserved is encoded, `/` too: an id is one segment, whatever it contains.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The path of a transaction.
pub fn location(transaction_id: &str) -> String {
    // A segment of dots alone is a step in the path for most clients, encoded or not, but there is no other way to
    // write it; the dots encoded survive at least the clients that take the path as it is.
    match transaction_id {
        "." => format!("{PATH}/%2E"),
        ".." => format!("{PATH}/%2E%2E"),
        _ => format!("{PATH}/{}", utf8_percent_encode(transaction_id, SEGMENT)),
    }
}

/// What was asked for, to be asked again of the next page.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Only those in this state.
    pub status: Option<State>,
    /// How many at most.
    pub limit: Limit,
}

impl Page {
    /// The `Link` to the page after the one that ends with `last`.
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
    fn ids_are_one_segment() {
        for (id, path) in [
            ("txn_abc123", "/v1/transactions/txn_abc123"),
            ("a/b c?é%", "/v1/transactions/a%2Fb%20c%3F%C3%A9%25"),
            ("..", "/v1/transactions/%2E%2E"),
        ] {
            assert_eq!(location(id), path);
        }
    }

    #[test]
    fn the_next_page_asks_for_the_same() {
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
        let page = Page { status: Some(State::Failed), limit: Limit(5) };
        assert_eq!(
            page.next_link(&last),
            format!("</v1/transactions?status=FAILED&limit=5&cursor={next}>; rel=\"next\"")
        );
        let page = Page { status: None, limit: Limit(20) };
        assert_eq!(page.next_link(&last), format!("</v1/transactions?limit=20&cursor={next}>; rel=\"next\""));
    }
}
