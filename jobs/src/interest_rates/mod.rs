//! Interest rates: the average of what is submitted, kept in PostgreSQL or in a contract on a chain.
//!
//! | file | what |
//! |---|---|
//! | [`rate`] | exact decimals, and their average |
//! | [`model`] | what is submitted and saved |
//! | [`storage`] | the interface of both storages |
//! | `postgres` | the one |
//! | `onchain` | the other: recorded first, signed, sent, confirmed |
//! | [`chain`] | what is said to the node |
//! | [`reconcile`] | the job: ends what a process left unfinished |
//! | `metrics` | what the chain says, counted |
//! | `store` | all SQL |

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
pub use model::{Asset, Cursor, Reading, Submission, Submitted};
pub use rate::{Rate, RateError};
use sqlx::PgPool;
use tracing::Instrument;

use self::{postgres::Postgres, reconcile::ReconcileRate, storage::Storage};
use crate::{
    error::Error,
    queue::{self, Job, Origin, Queue},
};

/// The feature. Clones share everything.
#[derive(Clone)]
pub struct Rates {
    storage: Arc<dyn Storage>,
    backend: &'static str,
}

impl Rates {
    /// Starts the feature on the storage that the configuration names.
    ///
    /// # Errors
    /// When the client of a chain cannot be built.
    pub fn start(pool: &PgPool, queue: &Queue, config: &Config) -> Result<Self, Error> {
        queue::metrics::zero(ReconcileRate::NAME);
        #[cfg(feature = "smart-contract")]
        metrics::describe();
        #[cfg(not(feature = "smart-contract"))]
        let _ = queue;
        let storage: Arc<dyn Storage> = match config {
            Config::Postgres => Arc::new(Postgres { pool: pool.clone() }),
            #[cfg(feature = "smart-contract")]
            Config::SmartContract(config) => Arc::new(onchain::OnChain::new(pool, queue, config)?),
        };
        Ok(Self { storage, backend: config.name() })
    }

    /// The name of the storage, as `STORAGE_BACKEND` has it.
    pub fn backend(&self) -> &'static str {
        self.backend
    }

    /// Saves the average of these assets. In a task of its own: a caller who leaves stops nothing halfway.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the storage cannot take it now: then nothing is saved, nor will it be.
    pub async fn submit(&self, submission: Submission, origin: Origin) -> Result<Submitted, Error> {
        let rate = Rate::average(submission.assets.iter().map(|asset| &asset.rate));
        let rate = rate.ok_or_else(|| Error::Internal("a submission without assets".into()))?;
        let storage = self.storage.clone();
        let work = async move { storage.save(submission, rate, origin).await }.in_current_span();
        tokio::spawn(work).await.unwrap_or_else(|error| Err(Error::Internal(error.to_string())))
    }

    /// The newest average.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the storage cannot be asked now.
    pub async fn current(&self) -> Result<Option<Reading>, Error> {
        self.storage.current().await
    }

    /// One page of all averages, newest first.
    ///
    /// # Errors
    /// As [`Rates::current`].
    pub async fn history(&self, before: Option<Cursor>, limit: u32) -> Result<Vec<Reading>, Error> {
        self.storage.history(before, limit).await
    }

    /// Whether the storage could save something now.
    ///
    /// # Errors
    /// Why not.
    pub async fn ready(&self) -> Result<(), String> {
        /// A probe must answer before whoever sent it gives up.
        const LIMIT: Duration = Duration::from_secs(2);
        let ready = tokio::time::timeout(LIMIT, self.storage.ready()).await;
        ready.unwrap_or_else(|_elapsed| Err("the storage of interest rates does not answer".into()))
    }
}
