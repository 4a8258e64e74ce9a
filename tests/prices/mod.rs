//! Crypto prices: what readers are shown, and what the caches change.

mod cache;
mod curve;
mod market;
mod providers;
mod reads;
mod stand;
mod stand_in;
