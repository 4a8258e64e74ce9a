//! Crypto prices: what each source answers and what becomes of it.

mod stand_in;
