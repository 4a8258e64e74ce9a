//! What operators see and do, through each interface.

mod cli;
mod http;
