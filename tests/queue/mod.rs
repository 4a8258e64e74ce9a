//! The queue's promises, by the numbers of its design: each test fails without what it is about.

mod claims;
mod enqueueing;
mod leases;
mod operating;
mod outcomes;
mod quarantine;
mod retention;
mod stopping;
mod waking;
