//! Items: what users offer, and how it is found.

pub mod search;
