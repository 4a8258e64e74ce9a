//! Finds what an id belongs to, for operators.

use queue::JobId;
use serde::Serialize;
use uuid::Uuid;

use crate::{
    app::App,
    items::ItemId,
    transactions::{Transaction, timeline::Timeline},
};
use runtime::error::Error;

/// One thing that has the id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// `job`, `transaction`, `item` or `replay`.
    pub kind: &'static str,
    /// Its own id, by which it is shown.
    pub id: String,
    /// A sentence.
    pub text: String,
}

impl Found {
    fn transaction(transaction: Transaction, more: &str) -> Self {
        let text = format!("transaction {}, {}{more}", transaction.transaction_id, transaction.status.into_str());
        Self { kind: "transaction", id: transaction.transaction_id, text }
    }
}

impl App {
    /// Finds the job, transaction, item or replay with this id, by exact look-ups. The id of a job is a ULID, that of a
    /// transaction is the sender's or the UUID, or the correlation id or the trace id of the request that it came with.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is not available.
    pub async fn find(&self, text: &str) -> Result<Vec<Found>, Error> {
        let text = text.trim();
        let mut found = Vec::new();
        if let Some(transaction) = self.transactions.find(text).await? {
            found.push(Found::transaction(transaction, ""));
        }
        let uuid = text.parse::<Uuid>().ok();
        let job = uuid.map_or_else(|| text.to_owned(), |uuid| JobId::from(uuid).to_string());
        if let Some(details) = self.operator.show(&job).await? {
            let text = format!("job of {}, {}", details.job.queue, details.job.state.as_str());
            found.push(Found { kind: "job", id: details.job.id, text });
        }
        if let Some(uuid) = uuid {
            if let Some(transaction) = self.transactions.get(uuid).await? {
                found.push(Found::transaction(transaction, ""));
            }
            if let Some(replay) = self.operator.find_replay(uuid).await? {
                let text = format!("replay of {}, {}", replay.queue, replay.state);
                found.push(Found { kind: "replay", id: replay.id.to_string(), text });
            }
        }
        if let Ok(id) = text.parse::<i64>()
            && let Some(item) = self.items.find(ItemId(id)).await?
        {
            found.push(Found { kind: "item", id: id.to_string(), text: format!("item {:?}", item.title) });
        }
        for transaction in self.transactions.find_by_request(text).await? {
            let is_known = |one: &Found| one.kind == "transaction" && one.id == transaction.transaction_id;
            if !found.iter().any(is_known) {
                found.push(Found::transaction(transaction, ", of the request with this id"));
            }
        }
        Ok(found)
    }

    /// The timeline of a transaction, by the sender's id; `None` if it is unknown.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is not available.
    pub async fn timeline(&self, transaction_id: &str) -> Result<Option<Timeline>, Error> {
        self.transactions.timeline(&self.operator, transaction_id).await
    }
}
