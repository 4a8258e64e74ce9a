//! Clients of external servers other than the database, and what they share.
//!
//! | file | what |
//! |---|---|
//! | [`breaker`] | circuit breaker: a dead server costs few callers a time-out |
//! | [`bucket`] | rate limits shared by all processes, as token buckets in Redis |
//! | [`http`] | builds HTTP clients |
//! | [`redis`] | the connection to Redis |
//! | [`retry_after`] | reads the `Retry-After` header |
//! | [`send`](mod@send) | sends an HTTP request inside a trace span |
//! | [`single_flight`] | concurrent requests for the same key share one load |

pub mod breaker;
pub mod bucket;
pub mod http;
pub mod redis;
pub mod retry_after;
pub mod send;
pub mod single_flight;
