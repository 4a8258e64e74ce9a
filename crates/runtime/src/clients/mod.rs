//! Clients of external servers other than the database, and what they share.

pub mod breaker;
pub mod bucket;
pub mod http;
pub mod object;
pub mod redis;
pub mod retry_after;
pub mod send;
pub mod single_flight;
