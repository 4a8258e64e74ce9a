//! Servers beside the database: how they are waited for, and done without.
//!
//! | file | what |
//! |---|---|
//! | [`breaker`] | a dead server costs few callers a time-out |
//! | [`bucket`] | how often one caller may do something, over all processes |
//! | [`flights`] | one load for all who want the same |
//! | [`redis`] | the one Redis that all processes share |
//! | [`retry_after`] | how long a server asks to be left alone |
//! | [`send`](mod@send) | one way out: a request with its span |

pub mod breaker;
pub mod bucket;
pub mod flights;
pub mod redis;
pub mod retry_after;
pub mod send;
