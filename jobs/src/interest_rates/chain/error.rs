//! Why the chain did not do what it was asked.

/// What went wrong. No text has the node's URL or a key in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The node cannot be reached, does not answer in time, or is overloaded. After a sending the outcome is unknown.
    #[error("the chain cannot be reached: {0}")]
    Unreachable(String),
    /// The node answers, but it is not ours, the contract is not at its address, or the key is not its owner's: only a
    /// change of the configuration helps.
    #[error("the chain is misconfigured: {0}")]
    Misconfigured(String),
    /// The contract has this id.
    #[error("the contract has this id already")]
    AlreadySaved,
    /// The nonce has been used by another transaction, or by this one.
    #[error("the nonce has been used")]
    NonceUsed,
    /// The node wants higher fees, for instance because it has a transaction with this nonce.
    #[error("the node wants higher fees")]
    Underpriced,
    /// The account cannot pay for it, by its balance or in the node's words. Nothing has been taken; funds help.
    #[error("the account of CHAIN_PRIVATE_KEY cannot pay for it: {0}")]
    Unfunded(String),
    /// The node or the contract has refused it, for this reason. A transaction that is refused when it is sent has not
    /// been taken.
    #[error("refused by the chain: {0}")]
    Refused(String),
}

impl ChainError {
    /// Every [`ChainError::reason`].
    pub const REASONS: [&'static str; 4] = ["unreachable", "misconfigured", "unfunded", "refused"];

    /// One of few words, for a metric.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Misconfigured(_) => "misconfigured",
            Self::Unfunded(_) => "unfunded",
            Self::AlreadySaved | Self::NonceUsed | Self::Underpriced | Self::Refused(_) => "refused",
        }
    }
}
