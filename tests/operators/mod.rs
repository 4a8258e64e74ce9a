//! The operators' views: what operators see and do.

mod http;
