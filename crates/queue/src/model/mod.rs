//! A model of the queue, and tests that bind it to the SQL.
//!
//! Three parts, compiled only for tests:
//!
//! - [`row`] has a pure function for each statement of the store that changes a job: what it does to one row.
//! - [`state`] puts these functions into a state machine: two jobs, two workers, and faults at any moment. [`search`]
//!   visits every state that it can reach and checks [`invariants`] at each step. [`tests`] says how many there are, and
//!   switches off one guard after the other to show that the search finds what the guard prevents.
//! - [`conformance`] runs the real statements in a real PostgreSQL and compares each row with the model's. It also
//!   removes each condition of the real statements, and expects a difference.
//!
//! `docs/model.md` describes all three, and what they do not cover.

mod conformance;
mod guard;
mod invariants;
mod key;
mod row;
mod search;
mod state;
mod step;
mod tests;
