//! Wire types of the Mars probe endpoints.

use jobs::mars_probes::grid::{self, Grid, Position};
use poem_openapi::{Enum, Object, registry::MetaSchema};
use serde::Serialize;
use uuid::Uuid;

use crate::validation::{
    Cursor, FieldError, Fields, FromJsonObject, Integer, QueryValue, StrippedText, Value, integer_from_text,
    integer_schema, parse_choice, request,
};

/// The direction that a probe faces.
#[derive(Debug, Clone, Copy, Enum, Serialize)]
#[oai(rename = "ProbeDirection", rename_all = "UPPERCASE")]
#[serde(rename_all = "UPPERCASE")]
pub enum Direction {
    North,
    South,
    East,
    West,
}

impl From<grid::Direction> for Direction {
    fn from(from: grid::Direction) -> Self {
        match from {
            grid::Direction::North => Self::North,
            grid::Direction::South => Self::South,
            grid::Direction::East => Self::East,
            grid::Direction::West => Self::West,
        }
    }
}

/// A probe and its current position.
#[derive(Debug, Object, Serialize)]
pub struct Probe {
    id: Uuid,
    x: i32,
    y: i32,
    direction: Direction,
}

impl Probe {
    /// The probe `id` at the position `stand`.
    pub fn new(id: Uuid, stand: Position) -> Self {
        Self { id, x: stand.x, y: stand.y, direction: stand.direction.into() }
    }
}

/// All probes, or a page of them.
#[derive(Object)]
#[oai(rename = "ProbeList")]
pub struct Probes {
    probes: Vec<Probe>,
}

request! {
    /// A grid and the direction of its probe. Unknown fields are ignored.
    #[example({"x": 5, "y": 5, "direction": "NORTH"})]
    pub struct SetupRequest {
        /// The largest `x`. Not 0 if `y` is 0.
        x: Integer<0, { i32::MAX as i64 }>,
        /// The largest `y`.
        y: Integer<0, { i32::MAX as i64 }>,
        /// The direction that the probe faces at first.
        direction: grid::Direction,
    }
}

impl Value for grid::Direction {
    fn schema() -> MetaSchema {
        let names = ["NORTH", "SOUTH", "EAST", "WEST"].map(Into::into);
        MetaSchema { enum_items: names.into(), ..MetaSchema::new("string") }
    }

    fn read(raw: &str) -> Result<Self, FieldError> {
        parse_choice(raw, "'NORTH', 'SOUTH', 'EAST' or 'WEST'", |text| text.parse().ok())
    }
}

request! {
    /// A sequence of commands for a probe. Unknown fields are ignored.
    #[example({"id": "00000000-0000-0000-0000-000000000000", "command": "MRM"})]
    pub struct MoveRequest {
        /// The `id` from the response to the setup.
        id: Uuid,
        /// `M`, `L` and `R`, in upper or lower case.
        command: StrippedText,
    }
}

/// The contents of a valid setup request.
#[derive(Debug)]
pub struct SetupInput {
    pub grid: Grid,
    pub direction: grid::Direction,
}

impl FromJsonObject for SetupInput {
    type Schema = SetupRequest;

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let SetupRequest { x, y, direction } = SetupRequest::read(fields)?;
        let grid = Grid { x: i32::try_from(x.0).ok()?, y: i32::try_from(y.0).ok()? };
        if grid == (Grid { x: 0, y: 0 }) {
            fields.record_body_error(FieldError::value_error("X and Y cannot both be zero"));
        }
        Some(Self { grid, direction })
    }
}

/// The contents of a valid move request.
#[derive(Debug)]
pub struct MoveInput {
    pub id: Uuid,
    pub command: String,
}

impl FromJsonObject for MoveInput {
    type Schema = MoveRequest;

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let MoveRequest { id, command } = MoveRequest::read(fields)?;
        Some(Self { id, command: command.0 })
    }
}

/// The largest number of probes on a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSize(pub u16);

impl PageSize {
    const MAX: u16 = 1_000;
}

impl QueryValue for PageSize {
    fn schema() -> MetaSchema {
        integer_schema(1, Self::MAX.into())
    }

    fn read(text: &str) -> Result<Self, FieldError> {
        let size = integer_from_text(text, 1, Self::MAX.into())?;
        u16::try_from(size).map(Self).map_err(|_| FieldError::above(Self::MAX.into()))
    }
}

/// The `Link` header for the page after the probe number `last`.
pub fn next_link(limit: PageSize, last: i64) -> String {
    let cursor = Cursor(last.to_be_bytes());
    format!("</api/v1/check?limit={}&cursor={cursor}>; rel=\"next\"", limit.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_a_page_size_of_1_to_1000() {
        for (text, size) in [("1", 1), ("+7", 7), ("007", 7), ("1000", 1000)] {
            assert_eq!(PageSize::read(text), Ok(PageSize(size)), "{text}");
        }
        assert_eq!(PageSize::read("0"), Err(FieldError::below(1)));
        assert_eq!(PageSize::read("-5"), Err(FieldError::below(1)));
        for text in ["1001", "99999999999999999999"] {
            assert_eq!(PageSize::read(text), Err(FieldError::above(1000)), "{text}");
        }
        for text in ["x", "1.5", "+", "--1"] {
            assert!(PageSize::read(text).is_err(), "{text}");
        }
    }
}
