//! Probes on the wire.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jobs::probes::grid::{self, Grid, Stand};
use poem_openapi::{Enum, Object, registry::MetaSchema, types::Example};
use serde::Serialize;
use uuid::Uuid;

use crate::validation::{Fields, FromBody, QueryValue, Wrong};

/// Where a probe looks.
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

/// A probe as it stands.
#[derive(Debug, Object, Serialize)]
pub struct Probe {
    id: Uuid,
    x: i32,
    y: i32,
    direction: Direction,
}

impl Probe {
    /// This probe there.
    pub fn new(id: Uuid, stand: Stand) -> Self {
        Self { id, x: stand.x, y: stand.y, direction: stand.direction.into() }
    }
}

/// All probes, or a page of them.
#[derive(Object)]
#[oai(rename = "Probes")]
pub struct Probes {
    probes: Vec<Probe>,
}

/// A grid, and the probe on it. Unknown fields are ignored.
#[derive(Object)]
#[oai(example)]
pub struct SetupRequest {
    /// The largest `x`; not 0 when `y` is.
    #[oai(validator(minimum(value = "0"), maximum(value = "2147483647")))]
    x: i32,
    /// The largest `y`.
    #[oai(validator(minimum(value = "0"), maximum(value = "2147483647")))]
    y: i32,
    direction: Direction,
}

impl Example for SetupRequest {
    fn example() -> Self {
        Self { x: 5, y: 5, direction: Direction::North }
    }
}

/// A command for a probe. Unknown fields are ignored.
#[derive(Object)]
#[oai(example)]
pub struct MoveRequest {
    /// As it was answered when the probe was set up.
    id: Uuid,
    /// `M`, `L` and `R`.
    #[oai(validator(min_length = 1))]
    command: String,
}

impl Example for MoveRequest {
    fn example() -> Self {
        Self { id: Uuid::nil(), command: "MRM".into() }
    }
}

/// What a setup says.
#[derive(Debug)]
pub struct Setup {
    pub grid: Grid,
    pub direction: grid::Direction,
}

impl FromBody for Setup {
    type Schema = SetupRequest;

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let mut largest =
            |name| fields.integer(name, 0..=i32::MAX.into()).and_then(|number| i32::try_from(number).ok());
        let (x, y) = (largest("x"), largest("y"));
        let expected = "'NORTH', 'SOUTH', 'EAST' or 'WEST'";
        let direction = fields.choice("direction", expected, grid::Direction::parse);
        let (grid, direction) = (Grid { x: x?, y: y? }, direction?);
        if grid == (Grid { x: 0, y: 0 }) {
            fields.note_whole(Wrong::rule("X and Y cannot both be zero"));
        }
        Some(Self { grid, direction })
    }
}

/// What a move says.
#[derive(Debug)]
pub struct Move {
    pub id: Uuid,
    pub command: String,
}

impl FromBody for Move {
    type Schema = MoveRequest;

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let (id, command) = (fields.uuid("id"), fields.stripped("command"));
        Some(Self { id: id?, command: command?.into_owned() })
    }
}

/// How many probes are on a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSize(pub u16);

impl PageSize {
    const MOST: u16 = 1_000;
}

impl QueryValue for PageSize {
    fn schema() -> MetaSchema {
        MetaSchema { minimum: Some(1.0), maximum: Some(f64::from(Self::MOST)), ..MetaSchema::new("integer") }
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            let msg = "Input should be a valid integer, unable to parse string as an integer";
            return Err(Wrong::new("int_parsing", msg));
        }
        if text.starts_with('-') || digits.bytes().all(|byte| byte == b'0') {
            return Err(Wrong::below(1));
        }
        // What does not fit is too many as well.
        let size = digits.parse().ok().filter(|size| *size <= Self::MOST);
        size.map(Self).ok_or_else(|| Wrong::above(Self::MOST.into()))
    }
}

/// Where a page begins, as a query parameter. Opaque to clients: its form may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub i64);

impl QueryValue for Cursor {
    fn schema() -> MetaSchema {
        MetaSchema::new("string")
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        let number = bytes.map(i64::from_be_bytes).filter(|number| *number > 0);
        number.map(Self).ok_or_else(|| Wrong::rule("cursor must be one that a Link header gave"))
    }
}

/// The `Link` to the page after the one that ends with this number.
pub fn next_link(limit: PageSize, last: i64) -> String {
    let cursor = URL_SAFE_NO_PAD.encode(last.to_be_bytes());
    format!("</api/v1/check?limit={}&cursor={cursor}>; rel=\"next\"", limit.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_one_to_a_thousand_probes() {
        for (text, size) in [("1", 1), ("+7", 7), ("007", 7), ("1000", 1000)] {
            assert_eq!(PageSize::read(text), Ok(PageSize(size)), "{text}");
        }
        assert_eq!(PageSize::read("0"), Err(Wrong::below(1)));
        assert_eq!(PageSize::read("-5"), Err(Wrong::below(1)));
        for text in ["1001", "99999999999999999999"] {
            assert_eq!(PageSize::read(text), Err(Wrong::above(1000)), "{text}");
        }
        for text in ["x", "1.5", "+", "--1"] {
            assert!(PageSize::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_cursor_comes_back_as_it_was_and_a_made_up_one_does_not() {
        for number in [1, 1000, i64::MAX] {
            assert_eq!(Cursor::read(&URL_SAFE_NO_PAD.encode(number.to_be_bytes())), Ok(Cursor(number)));
        }
        for text in ["x", "%%%", "AAAAAAAAAAA", "__________8", &URL_SAFE_NO_PAD.encode([1; 9])] {
            assert!(Cursor::read(text).is_err(), "{text}");
        }
    }
}
