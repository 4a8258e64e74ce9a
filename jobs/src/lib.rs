//! Everything Millrace *does*, apart from speaking HTTP: one folder per feature, with its rules, its SQL and its jobs.
//!
//! | where | what |
//! |---|---|
//! | [`app`] | builds every feature from [`config`]; read it to see what the system is made of |
//! | [`mod@bench`] | what `millrace bench` compares with |
//! | [`decimal`] | decimal texts, read within bounds |
//! | [`boot`] | process plumbing: database, migrations, embedded PostgreSQL, telemetry, shutdown |
//! | [`clock`] | what time it is, so that tests set it |
//! | [`items`] | what users offer: cached by id, indexed after each write, and found |
//! | [`mars_probes`] | probes on Mars, moved by commands |
//! | [`logs`] | the logs of all processes, read back |
//! | [`queue`] | what a job is and what the queue promises; the only folder that knows apalis |
//! | [`interest_rates`] | interest rates, in PostgreSQL or on a smart contract |
//! | [`schedule`] | work at fixed times, fired once by any number of workers |
//! | [`text`] | text normalisation for searches, accounts, passwords and names |
//! | [`transactions`] | webhooks that must be processed exactly once in effect |
//! | [`users`] | who registers, logs in, and calls |

pub mod app;
pub mod bench;
pub mod boot;
pub mod clock;
pub mod config;
pub mod decimal;
pub mod error;
pub mod interest_rates;
pub mod items;
pub mod logs;
pub mod mars_probes;
pub mod prices;
pub mod queue;
pub mod remote;
pub mod schedule;
pub mod text;
pub mod transactions;
pub mod users;
