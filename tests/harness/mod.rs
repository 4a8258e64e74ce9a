//! The test harness: a private PostgreSQL, a fresh database per test, real processes, fakes and waiting.
//!
//! ```ignore
//! let database = harness::database::fresh().await;
//! let pool = database.pool().await;
//! eventually("the job is done", Duration::from_secs(5), async || done(&pool).await).await;
//! ```

#[cfg(feature = "smart-contract")]
pub mod anvil;
pub mod clock;
pub mod cluster;
pub mod database;
mod database_test;
pub mod eventually;
pub mod fake_providers;
pub mod http;
pub mod needs;
pub mod node;
pub mod port;
pub mod process;
pub mod proxy;
pub mod python;
pub mod queue_harness;
pub mod redis;
pub mod scratch;
pub mod system;
mod watchdog;

pub use eventually::eventually;
