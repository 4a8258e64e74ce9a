//! Crypto prices: what each source answers and what becomes of it.

mod providers;
mod stand_in;
