//! The schemas of callbacks: destinations, the body that enables one, and the result of a test message.

use poem_openapi::Object;

use super::input::ReasonText;
use crate::{
    validation::{Text, request},
    wire::{Nullable, Timestamp},
};

/// A destination of callbacks, and what is wrong with it.
#[derive(Object)]
#[oai(rename = "CallbackDestination")]
pub(crate) struct Destination {
    /// The sender whose settlements it gets; empty for those of all senders without a destination of their own.
    name: String,
    /// Without its query, and with `***` in place of what may be a token; null if this process has no URL for it.
    url: Nullable<String>,
    /// The first failure since the last success.
    failing_since: Nullable<Timestamp>,
    /// Since then nothing is sent to it.
    disabled_at: Nullable<Timestamp>,
    disabled_because: Nullable<String>,
    /// Callbacks that are neither delivered nor given up; counted up to 10,000.
    waiting: i64,
}

/// A test message that was sent.
#[derive(Object)]
#[oai(rename = "CallbackTest")]
pub(crate) struct Test {
    /// The header `webhook-id` of the message.
    webhook_id: String,
    /// Empty for the common URL.
    destination: String,
    /// Whether the response was 2xx.
    delivered: bool,
    /// The status of the response; null without one.
    status: Nullable<u16>,
    /// Why it was not delivered.
    error: Nullable<String>,
}

request! {
    /// Which destination of callbacks is enabled, and why.
    #[example({"destination": "acme", "reason": "the receiver is healthy again"})]
    EnableRequest for Enabling {
        /// The sender; absent or empty for the destination of all senders without one of their own.
        destination: Option<Text<0, 64>>,
        /// It is recorded and shown to other operators.
        reason: ReasonText,
    } => Ok(Self { destination: destination.unwrap_or_default(), reason })
}

/// Which destination of callbacks is enabled, and why.
#[derive(Debug)]
pub(crate) struct Enabling {
    pub destination: String,
    pub reason: String,
}
