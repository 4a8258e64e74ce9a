//! The published document: valid, and good enough that clients generated from it work.

mod clients;
