//! Operators: the faces of the service layer.

mod board;
