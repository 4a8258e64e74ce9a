//! What operators see and do, through each interface.

mod board;
mod browser;
mod cli;
mod http;
mod views;
