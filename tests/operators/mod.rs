//! What operators see and do, through each interface.

mod board;
mod capacity;
mod cli;
mod doctor;
mod http;
