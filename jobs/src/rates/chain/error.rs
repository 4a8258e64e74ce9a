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
    /// The node or the contract has refused it, for this reason. A transaction that is refused when it is sent has not
    /// been taken.
    #[error("refused by the chain: {0}")]
    Refused(String),
}
