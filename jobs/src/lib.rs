//! Domain logic of Millrace, without HTTP: one folder per feature with its rules, its SQL and its background jobs.
//!
//! | where | what |
//! |---|---|
//! | [`app`] | builds all features from [`config`]: the overview of the system |
//! | [`mod@bench`] | baselines for `millrace bench` |
//! | [`error`] | failures that are not the caller's fault |
//! | [`decimal`] | decimal parser with bounded memory use |
//! | [`items`] | items that users offer: cached by id, indexed after each write, searchable |
//! | [`mars_probes`] | probes on Mars that clients move by commands |
//! | [`logs`] | export of the log files of all processes |
//! | [`prices`] | crypto prices from several providers |
//! | [`interest_rates`] | interest rates, in PostgreSQL or on a smart contract |
//! | [`text`] | text normalisation for searches, accounts, passwords and names |
//! | [`transactions`] | transactions from webhooks, processed with exactly-once effect |
//! | [`users`] | registration, login and access tokens |

pub mod app;
pub mod bench;
pub mod decimal;
pub mod interest_rates;
pub mod items;
pub mod logs;
pub mod mars_probes;
pub mod prices;
pub mod text;
pub mod transactions;
pub mod users;
