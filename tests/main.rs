//! End to end, across processes; one module per feature, by the same word as everywhere.

mod embedded_postgres;
mod harness;
mod queue;
mod smoke;
