//! Wire types of the Mars probe endpoints.

use jobs::mars_probes::grid::{self, Grid, Position};
use poem_openapi::{Enum, Object};
use serde::Serialize;
use strum::VariantArray;
use uuid::Uuid;

use crate::validation::{Choice, FieldError, Integer, OneOf, StrippedText, request};

/// The direction that a probe faces.
#[derive(Debug, Clone, Copy, Enum, Serialize)]
#[oai(rename = "ProbeDirection", rename_all = "UPPERCASE", remote = "grid::Direction")]
#[serde(rename_all = "UPPERCASE")]
pub enum Direction {
    North,
    South,
    East,
    West,
}

/// A probe and its current position.
#[derive(Debug, Object, Serialize)]
pub(super) struct Probe {
    id: Uuid,
    x: i32,
    y: i32,
    direction: Direction,
}

impl Probe {
    /// The probe `id` at this position.
    pub(super) fn new(id: Uuid, position: Position) -> Self {
        Self { id, x: position.x, y: position.y, direction: position.direction.into() }
    }
}

/// All probes, or a page of them.
#[derive(Object)]
#[oai(rename = "ProbeList")]
pub(super) struct Probes {
    probes: Vec<Probe>,
}

/// The contents of a valid setup request.
#[derive(Debug)]
pub(super) struct SetupInput {
    pub grid: Grid,
    pub direction: grid::Direction,
}

request! {
    /// A grid and the direction of its probe. Unknown fields are ignored.
    #[example({"x": 5, "y": 5, "direction": "NORTH"})]
    SetupRequest for SetupInput {
        /// The largest `x`. Not 0 if `y` is 0.
        x: Integer<0, { i32::MAX as i64 }, i32>,
        /// The largest `y`.
        y: Integer<0, { i32::MAX as i64 }, i32>,
        /// The direction that the probe faces at first.
        direction: OneOf<grid::Direction>,
    } => match (x, y) {
        (0, 0) => Err(FieldError::value_error("X and Y cannot both be zero")),
        _ => Ok(Self { grid: Grid { x, y }, direction }),
    }
}

impl Choice for grid::Direction {
    const ALL: &'static [Self] = Self::VARIANTS;

    fn name(self) -> &'static str {
        self.into_str()
    }
}

/// The contents of a valid move request.
#[derive(Debug)]
pub(super) struct MoveInput {
    pub id: Uuid,
    pub command: String,
}

request! {
    /// A sequence of commands for a probe. Unknown fields are ignored.
    #[example({"id": "00000000-0000-0000-0000-000000000000", "command": "MRM"})]
    MoveRequest for MoveInput {
        /// The `id` from the response to the setup.
        id: Uuid,
        /// `M`, `L` and `R`, in upper or lower case.
        command: StrippedText,
    }
}

/// The largest number of probes on a page.
pub(super) type PageSize = Integer<1, 1_000, u16>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::QueryValue;

    #[test]
    fn accepts_a_page_size_of_1_to_1000() {
        let read = <PageSize as QueryValue>::read;
        for (text, size) in [("1", 1), ("+7", 7), ("007", 7), ("1000", 1000)] {
            assert_eq!(read(text), Ok(size), "{text}");
        }
        assert_eq!(read("0"), Err(FieldError::below(1)));
        assert_eq!(read("-5"), Err(FieldError::below(1)));
        for text in ["1001", "99999999999999999999"] {
            assert_eq!(read(text), Err(FieldError::above(1000)), "{text}");
        }
        for text in ["x", "1.5", "+", "--1"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
