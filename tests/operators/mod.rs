//! What operators see and do, through each interface.

mod board;
mod browser;
mod capacity;
mod cli;
mod doctor;
mod http;
pub(crate) mod in_time;
mod pages;
mod views;
