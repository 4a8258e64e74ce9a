//! The features of Millrace, one folder each: rules, SQL and background jobs. They do not know HTTP.
//!
//! Start with [`app`], which builds every feature from its configuration. The queue is the crate `queue`; database access,
//! configuration and telemetry are in the crate `runtime`.

pub mod app;
#[cfg(feature = "bench")]
pub mod bench;
pub mod decimal;
pub mod interest_rates;
pub mod items;
pub mod logs;
pub mod lookup;
pub mod mars_probes;
pub mod overview;
pub mod prices;
pub mod text;
pub mod transactions;
pub mod users;
