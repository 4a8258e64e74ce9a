//! The data of callbacks: their kinds, and what operators see of destinations.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr};
use time::OffsetDateTime;
use uuid::Uuid;

/// The number of waiting callbacks of a destination is counted up to this.
pub const MAX_WAITING: i64 = 10_000;

/// What a callback reports: the `type` of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, EnumString, IntoStaticStr)]
#[strum(const_into_str)]
pub enum CallbackKind {
    #[serde(rename = "transaction.processed")]
    #[strum(serialize = "transaction.processed")]
    Processed,
    #[serde(rename = "transaction.failed")]
    #[strum(serialize = "transaction.failed")]
    Failed,
}

/// The name of a destination in sentences.
pub fn label(destination: &str) -> &str {
    if destination.is_empty() { "the common URL" } else { destination }
}

/// The target of the recorded actions on a destination.
pub fn audit_target(destination: &str) -> String {
    if destination.is_empty() { "callbacks".into() } else { format!("callbacks:{destination}") }
}

/// A destination, and what is wrong with it.
#[derive(Debug, Clone, Serialize)]
pub struct DestinationStatus {
    /// The sender whose settlements it gets; empty for those of all senders without a destination of their own.
    pub name: String,
    /// Without query and tokens; `None` if this process has no URL for it.
    pub url: Option<String>,
    /// The first failure since the last success.
    #[serde(with = "time::serde::rfc3339::option")]
    pub failing_since: Option<OffsetDateTime>,
    /// Since then nothing is sent to it.
    #[serde(with = "time::serde::rfc3339::option")]
    pub disabled_at: Option<OffsetDateTime>,
    pub disabled_because: Option<String>,
    /// Callbacks that are neither delivered nor given up; counted up to [`MAX_WAITING`].
    pub waiting: i64,
}

/// What is wrong with a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationProblem {
    /// As in [`DestinationStatus`].
    pub name: String,
    /// The first failure since the last success.
    pub failing_since: Option<OffsetDateTime>,
    /// Since then nothing is sent to it.
    pub disabled_at: Option<OffsetDateTime>,
    pub disabled_because: Option<String>,
}

/// The result of the request to enable a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enabled {
    Enabled,
    /// Nothing is changed.
    NotDisabled,
    Unknown,
}

/// The result of the request to send a test message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tested {
    Sent(TestMessage),
    /// There is no destination of this name.
    Unknown,
    /// No destination is configured.
    NotConfigured,
}

/// A test message that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TestMessage {
    pub webhook_id: Uuid,
    /// Empty for the common URL.
    pub destination: String,
    /// Whether the response was 2xx.
    pub delivered: bool,
    /// `None` without a response.
    pub status: Option<u16>,
    /// Why it was not delivered.
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The database, payloads of jobs and bodies have the same names.
    #[test]
    fn a_kind_has_one_name() {
        for (kind, name) in
            [(CallbackKind::Processed, "transaction.processed"), (CallbackKind::Failed, "transaction.failed")]
        {
            assert_eq!(kind.into_str(), name);
            assert_eq!(name.parse(), Ok(kind));
            assert_eq!(serde_json::to_string(&kind).ok(), Some(format!("\"{name}\"")));
        }
    }

    #[test]
    fn no_sender_has_the_target_of_another() {
        assert_eq!((audit_target(""), audit_target("acme")), ("callbacks".into(), "callbacks:acme".into()));
        assert_eq!((label(""), label("acme")), ("the common URL", "acme"));
    }
}
