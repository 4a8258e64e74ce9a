//! The tags of the OpenAPI document: one per feature.

use poem_openapi::Tags;
use serde::Deserialize;

/// The tag of an operation. The order is that of the documentation: the main feature first, health last.
#[derive(Tags, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tag {
    /// Webhooks that are recorded once, processed once in effect, and looked up by their senders.
    Transactions,
    /// Items that users offer: written by their owners, readable by everyone.
    Items,
    /// Full-text search for items.
    Search,
    /// The average of submitted interest rates, stored in PostgreSQL or in a smart contract.
    #[oai(rename = "Interest rates")]
    #[serde(rename = "Interest rates")]
    InterestRates,
    /// Probes on Mars, each on its own grid. A list of commands is executed completely or not at all.
    #[oai(rename = "Mars probes")]
    #[serde(rename = "Mars probes")]
    Probes,
    /// Prices of crypto assets, fetched daily and on request.
    #[oai(rename = "Crypto prices")]
    #[serde(rename = "Crypto prices")]
    Prices,
    /// Registration, and the login that returns a token.
    Users,
    /// Queues, jobs, dead letters and workers: what operators see and do.
    Operators,
    /// The structured logs of all processes.
    Logs,
    /// Liveness, readiness and metrics of the process.
    Health,
}
