//! The SQL of the examination. The statements read catalogues of PostgreSQL 15 to 18, not our tables, so they are not among
//! those that the compiler checks against our schema; the tests run each of them.

pub(super) mod access;
pub(super) mod schema;
pub(super) mod server;
pub(super) mod sessions;
pub(super) mod storage;
