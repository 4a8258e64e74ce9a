//! The operators' views: what operators see and do.

mod board;
mod http;
