//! Every end-to-end test of Millrace, in one binary: one file per feature, over one harness.

mod embedded_postgres;
mod harness;
