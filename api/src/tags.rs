//! The chapters of the API's documentation.

use poem_openapi::Tags;

/// Which chapter an operation belongs to.
#[derive(Tags)]
pub enum Tag {
    /// Webhooks that are recorded once, processed once in effect, and looked up by their senders.
    Transactions,
    /// Who registers, and who logs in.
    Users,
    /// What users offer: written by their owners, read by everybody.
    Items,
    /// Items found by their words.
    Search,
    /// The average of what is submitted, in PostgreSQL or in a contract on a chain.
    InterestRates,
    /// Probes on Mars, each on a grid of its own, moved by commands that are obeyed wholly or not at all.
    Probes,
    /// What the processes have logged.
    Logs,
    /// What crypto assets cost: fetched every day and when they are asked for.
    Prices,
    /// Whether the process lives, is ready, and how it is doing.
    Health,
}
