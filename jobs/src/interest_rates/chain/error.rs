//! Errors of chain calls.

/// Why a chain call failed. No text contains the node's URL or a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The node cannot be reached, does not respond in time, or is overloaded. After a send the outcome is unknown.
    #[error("the chain cannot be reached: {0}")]
    Unreachable(String),
    /// The node responds, but its URL, the contract's address or the key is wrong. Only a change of the configuration
    /// helps.
    #[error("the chain is misconfigured: {0}")]
    Misconfigured(String),
    /// The contract has this id already.
    #[error("the contract has this id already")]
    AlreadySaved,
    /// A block has a transaction with this nonce: this one or another.
    #[error("the nonce has been used")]
    NonceUsed,
    /// The node requires higher fees, for instance because it has a pending transaction with this nonce.
    #[error("the node wants higher fees")]
    Underpriced,
    /// The account cannot pay, according to its balance or to the node. The transaction was not accepted.
    #[error("the account of CHAIN_PRIVATE_KEY cannot pay for it: {0}")]
    Unfunded(String),
    /// The node or the contract refused the call for this reason. A transaction that is refused when sent was not
    /// accepted.
    #[error("refused by the chain: {0}")]
    Refused(String),
}

impl ChainError {
    /// All values of [`ChainError::reason`].
    pub const REASONS: [&'static str; 4] = ["unreachable", "misconfigured", "unfunded", "refused"];

    /// The label of this error in a metric.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Misconfigured(_) => "misconfigured",
            Self::Unfunded(_) => "unfunded",
            Self::AlreadySaved | Self::NonceUsed | Self::Underpriced | Self::Refused(_) => "refused",
        }
    }
}
