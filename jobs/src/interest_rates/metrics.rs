//! What the chain says, counted.

use metrics::{counter, describe_counter};

use super::chain::ChainError;

/// Calls for a submission that the chain did not do, by reason.
pub const CHAIN_ERRORS: &str = "millrace_chain_errors_total";

/// Says what the metric means, and shows it at 0 from the start.
pub fn describe() {
    describe_counter!(
        CHAIN_ERRORS,
        "What the chain did not do for interest rates, by reason: unreachable, misconfigured, unfunded, which is an account \
         that cannot pay, or refused."
    );
    for reason in ChainError::REASONS {
        counter!(CHAIN_ERRORS, "reason" => reason).absolute(0);
    }
}
