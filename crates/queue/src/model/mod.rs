//! A model of the queue.
//!
//! Two parts, compiled only for tests:
//!
//! - [`row`] has a pure function for each statement of the store that changes a job: what it does to one row.
//! - [`state`] puts these functions into a state machine: two jobs, two workers, and faults at any moment. [`search`]
//!   visits every state that it can reach and checks [`invariants`] at each step. [`tests`] says how many there are, and
//!   switches off one guard after the other to show that the search finds what the guard prevents.

mod guard;
mod invariants;
mod key;
mod row;
mod search;
mod state;
mod step;
mod tests;
