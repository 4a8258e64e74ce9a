//! The test harness: a private PostgreSQL, a fresh database per test, real processes, fakes and waiting.
//!
//! ```ignore
//! let database = harness::database::fresh().await;
//! let pool = database.pool().await;
//! eventually("the job is done", Duration::from_secs(5), async || done(&pool).await).await;
//! ```

#[cfg(feature = "smart-contract")]
pub(crate) mod anvil;
pub(crate) mod clock;
pub(crate) mod cluster;
pub(crate) mod database;
mod database_test;
pub(crate) mod eventually;
pub(crate) mod fake_providers;
pub(crate) mod http;
pub(crate) mod needs;
pub(crate) mod node;
pub(crate) mod port;
pub(crate) mod process;
pub(crate) mod python;
pub(crate) mod queue_harness;
pub(crate) mod redis;
pub(crate) mod scratch;
pub(crate) mod search_engine;
pub(crate) mod system;
mod watchdog;

pub(crate) use eventually::eventually;
