//! Tests of crypto prices: reads, caches, providers and outages.

mod cache;
mod curve;
mod fakes;
mod in_memory;
mod names;
mod newest;
mod outages;
mod price_harness;
mod provenance;
mod providers;
mod reads;
mod real;
