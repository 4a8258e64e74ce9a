//! Interest rates: stores the average of each submission in PostgreSQL or in a smart contract.

#[cfg(feature = "smart-contract")]
pub mod chain;
mod config;
#[cfg(feature = "smart-contract")]
mod metrics;
pub mod model;
#[cfg(feature = "smart-contract")]
mod onchain;
mod postgres;
pub mod rate;
pub mod reconcile;
pub mod storage;
mod store;

use std::{sync::Arc, time::Duration};

pub use config::Config;
pub use model::{Asset, Cursor, SavedRate, Submission, SubmissionOutcome};
pub use rate::{Rate, RateError};

use self::{postgres::PostgresStorage, reconcile::ReconcileRate, storage::Storage};
use queue::{Job, Origin, Queue};
use runtime::{db::Pool, error::Error, task::run_to_completion};

/// The feature. Clones share its state.
#[derive(Clone)]
pub struct Rates {
    storage: Arc<dyn Storage>,
    backend: &'static str,
}

impl Rates {
    /// Starts the feature with the configured storage.
    ///
    /// # Errors
    /// Fails if the client of the chain cannot be built.
    pub fn start(pool: &Pool, queue: &Queue, config: &Config) -> Result<Self, Error> {
        queue::metrics::zero(ReconcileRate::NAME);
        #[cfg(feature = "smart-contract")]
        metrics::describe();
        #[cfg(not(feature = "smart-contract"))]
        let _ = queue;
        let storage: Arc<dyn Storage> = match config {
            Config::Postgres => Arc::new(PostgresStorage { pool: pool.clone() }),
            #[cfg(feature = "smart-contract")]
            Config::SmartContract(config) => Arc::new(onchain::ChainStorage::new(pool, queue, config)?),
        };
        Ok(Self { storage, backend: config.name() })
    }

    /// The name of the storage: the value of `STORAGE_BACKEND`.
    pub fn backend(&self) -> &'static str {
        self.backend
    }

    /// Saves the average of the submitted assets. Spawned, so that a client that disconnects cannot cancel it halfway.
    ///
    /// # Errors
    /// Returns [`Error::Unavailable`] if the storage cannot take it now. Then it is not saved, and will not be saved
    /// later. If that is not known, the outcome is [`SubmissionOutcome::Unknown`].
    pub async fn submit(&self, submission: Submission, origin: Origin) -> Result<SubmissionOutcome, Error> {
        let rate = Rate::average(submission.assets.iter().map(|asset| &asset.rate));
        let rate = rate.ok_or_else(|| Error::Internal("a submission without assets".into()))?;
        let storage = self.storage.clone();
        run_to_completion(async move { storage.save(submission, rate, origin).await }).await
    }

    /// The newest average.
    ///
    /// # Errors
    /// Returns [`Error::Unavailable`] if the storage cannot be read now.
    pub async fn current(&self) -> Result<Option<SavedRate>, Error> {
        self.storage.current().await
    }

    /// One page of the history, newest first.
    ///
    /// # Errors
    /// Returns [`Error::Unavailable`] if the storage cannot be read now.
    pub async fn history(&self, before: Option<Cursor>, limit: u32) -> Result<Vec<SavedRate>, Error> {
        self.storage.history(before, limit).await
    }

    /// Checks that the storage can save a submission now.
    ///
    /// # Errors
    /// Returns the reason if it cannot.
    pub async fn ready(&self) -> Result<(), String> {
        /// Below the usual time limit of a readiness probe.
        const LIMIT: Duration = Duration::from_secs(2);
        let ready = tokio::time::timeout(LIMIT, self.storage.ready()).await;
        ready.unwrap_or_else(|_elapsed| Err("the storage of interest rates does not respond within 2 s".into()))
    }
}
