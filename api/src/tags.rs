//! The chapters of the API's documentation.

use poem_openapi::Tags;

/// Which chapter an operation belongs to.
#[derive(Tags)]
pub enum Tag {
    /// Webhooks that are recorded once, processed once in effect, and looked up by their senders.
    Transactions,
    /// What users offer: written by their owners, read by everybody.
    Items,
    /// Items found by their words.
    Search,
    /// The average of what is submitted, in PostgreSQL or in a contract on a chain.
    #[oai(rename = "Interest rates")]
    InterestRates,
    /// Probes on Mars, each on a grid of its own, moved by commands that are obeyed wholly or not at all.
    #[oai(rename = "Mars probes")]
    Probes,
    /// What crypto assets cost: fetched every day and when they are asked for.
    #[oai(rename = "Crypto prices")]
    Prices,
    /// Registration, and the login that returns a token.
    Users,
    /// What the processes have logged.
    Logs,
    /// Whether the process lives, is ready, and how it is doing.
    Health,
}

impl Tag {
    /// All chapters in the order of the documentation: the main job first, health last.
    pub const ALL: [Self; 9] = [
        Self::Transactions,
        Self::Items,
        Self::Search,
        Self::InterestRates,
        Self::Probes,
        Self::Prices,
        Self::Users,
        Self::Logs,
        Self::Health,
    ];
}
