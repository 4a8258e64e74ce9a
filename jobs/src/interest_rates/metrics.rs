//! Counters of chain errors.

use metrics::{counter, describe_counter};

use super::chain::ChainError;

/// Chain calls for interest rates that failed, by reason.
pub(super) const CHAIN_ERRORS: &str = "millrace_chain_errors_total";

/// Describes the metric, and sets it to 0 for each reason.
pub(super) fn describe() {
    describe_counter!(
        CHAIN_ERRORS,
        "Chain calls for interest rates that failed, by reason: unreachable, misconfigured, unfunded (the account \
         cannot pay), or refused."
    );
    for reason in ChainError::REASONS {
        counter!(CHAIN_ERRORS, "reason" => reason).absolute(0);
    }
}
