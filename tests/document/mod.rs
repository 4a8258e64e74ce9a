//! The published OpenAPI document: it is valid, and clients generated from it work.

mod clients;
