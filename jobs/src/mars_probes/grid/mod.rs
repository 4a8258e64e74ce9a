//! Pure rules of probes: commands, positions and grid limits. Each command takes constant time and no memory.

use std::fmt;

use strum::{EnumString, IntoStaticStr, VariantArray};
use uuid::Uuid;

/// A grid, by its largest coordinates. The smallest ones are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    pub x: i32,
    pub y: i32,
}

/// The direction that a probe faces. The API and the database have the names in upper case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "UPPERCASE", const_into_str)]
pub enum Direction {
    North,
    South,
    East,
    West,
}

impl Direction {
    fn left(self) -> Self {
        match self {
            Self::North => Self::West,
            Self::West => Self::South,
            Self::South => Self::East,
            Self::East => Self::North,
        }
    }

    fn right(self) -> Self {
        match self {
            Self::North => Self::East,
            Self::East => Self::South,
            Self::South => Self::West,
            Self::West => Self::North,
        }
    }
}

/// Coordinates, and the direction that the probe faces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    pub x: i32,
    pub y: i32,
    pub direction: Direction,
}

/// A probe with its grid and current position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    pub id: Uuid,
    pub grid: Grid,
    pub position: Position,
}

/// A probe in a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedProbe {
    /// Its serial number, the cursor of the next page.
    pub number: i64,
    pub id: Uuid,
    pub position: Position,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Move,
    Left,
    Right,
}

/// A parsed command string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commands(Vec<Command>);

/// The first invalid character of a command string, in upper case. If its upper case has several characters, as that of
/// ß, only the first of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidCommand(pub char);

/// The error for commands that lead out of this grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfGrid(pub Grid);

impl Commands {
    /// Parses `M`, `L` and `R` in either case. Surrounding whitespace is ignored.
    ///
    /// # Errors
    /// Returns the first character that is not a command.
    pub fn parse(text: &str) -> Result<Self, InvalidCommand> {
        let read = |letter| match letter {
            'M' => Ok(Command::Move),
            'L' => Ok(Command::Left),
            'R' => Ok(Command::Right),
            other => Err(InvalidCommand(other)),
        };
        text.trim().chars().flat_map(char::to_uppercase).map(read).collect::<Result<_, _>>().map(Self)
    }

    /// The number of commands.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no commands.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |command: &Command| match command {
            Command::Move => "M",
            Command::Left => "L",
            Command::Right => "R",
        };
        self.0.iter().try_for_each(|command| f.write_str(letter(command)))
    }
}

/// Returns the position after all commands.
///
/// # Errors
/// Returns [`OutOfGrid`] if one of the commands leads out of the grid; then none is applied.
pub fn apply(grid: Grid, from: Position, commands: &Commands) -> Result<Position, OutOfGrid> {
    commands.0.iter().try_fold(from, |position, command| match command {
        Command::Left => Ok(Position { direction: position.direction.left(), ..position }),
        Command::Right => Ok(Position { direction: position.direction.right(), ..position }),
        Command::Move => step(grid, position).ok_or(OutOfGrid(grid)),
    })
}

fn step(grid: Grid, position: Position) -> Option<Position> {
    let along = |at: i32, by: i32, most: i32| at.checked_add(by).filter(|at| (0..=most).contains(at));
    let Position { x, y, direction } = position;
    let (x, y) = match direction {
        Direction::North => (x, along(y, 1, grid.y)?),
        Direction::South => (x, along(y, -1, grid.y)?),
        Direction::East => (along(x, 1, grid.x)?, y),
        Direction::West => (along(x, -1, grid.x)?, y),
    };
    Some(Position { x, y, direction })
}

#[cfg(test)]
mod tests;
