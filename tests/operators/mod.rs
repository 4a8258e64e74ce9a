//! The operators' faces: the same facts and actions by the command line, HTTP and the board.

mod cli;
