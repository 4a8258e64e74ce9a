//! Servers beside the database: how they are waited for, and done without.
//!
//! | file | what |
//! |---|---|
//! | [`breaker`] | a dead server costs few callers a time-out |
//! | [`flights`] | one load for all who want the same |
//! | [`redis`] | the one Redis that all processes share |

pub mod breaker;
pub mod flights;
pub mod redis;
