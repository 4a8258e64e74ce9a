//! Crypto prices: what readers are shown, and what the caches change.

mod cache;
mod curve;
mod market;
mod names;
mod newest;
mod outages;
mod providers;
mod reads;
mod real;
mod stand;
mod stand_in;
