//! Work that ends even if its caller does not wait for it.

use crate::{error::Error, telemetry::scope};

/// Runs the work in its own task, in the scope of the caller, so that a client that disconnects cannot cancel it halfway.
///
/// # Errors
/// The work's own, or [`Error::Internal`] when it panics.
pub async fn run_to_completion<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    tokio::spawn(scope::inherit(work)).await.unwrap_or_else(|error| Err(Error::Internal(error.to_string())))
}
