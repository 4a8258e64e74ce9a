//! A probe on its grid: what commands are, and where they lead. Pure; each command takes constant time and no memory.

use std::fmt;

use uuid::Uuid;

/// The largest coordinates of a grid; the smallest are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    pub x: i32,
    pub y: i32,
}

/// Where a probe looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    North,
    South,
    East,
    West,
}

impl Direction {
    /// All of them, in the order of the contract.
    pub const ALL: [Self; 4] = [Self::North, Self::South, Self::East, Self::West];

    /// Its name on the wire and in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::North => "NORTH",
            Self::South => "SOUTH",
            Self::East => "EAST",
            Self::West => "WEST",
        }
    }

    /// The one with this name, in upper case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|direction| direction.name() == name)
    }

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

/// A place, and where whoever stands there looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stand {
    pub x: i32,
    pub y: i32,
    pub direction: Direction,
}

/// A probe as it now stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    pub id: Uuid,
    pub grid: Grid,
    pub stand: Stand,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Move,
    Left,
    Right,
}

/// Commands for a probe, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commands(Vec<Command>);

/// The first character that is no command, in upper case: of one that has several there, such as ß, the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidCommand(pub char);

/// A command leads out of this grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfGrid(pub Grid);

impl Commands {
    /// Reads `M`, `L` and `R` of either case, outer blanks left out.
    ///
    /// # Errors
    /// The first character that is none of them.
    pub fn parse(text: &str) -> Result<Self, InvalidCommand> {
        let read = |letter| match letter {
            'M' => Ok(Command::Move),
            'L' => Ok(Command::Left),
            'R' => Ok(Command::Right),
            other => Err(InvalidCommand(other)),
        };
        text.trim().chars().flat_map(char::to_uppercase).map(read).collect::<Result<_, _>>().map(Self)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
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

/// Where these commands lead a probe; all of them, or none.
///
/// # Errors
/// When one of them leads out of the grid.
pub fn apply(grid: Grid, from: Stand, commands: &Commands) -> Result<Stand, OutOfGrid> {
    commands.0.iter().try_fold(from, |stand, command| match command {
        Command::Left => Ok(Stand { direction: stand.direction.left(), ..stand }),
        Command::Right => Ok(Stand { direction: stand.direction.right(), ..stand }),
        Command::Move => step(grid, stand).ok_or(OutOfGrid(grid)),
    })
}

fn step(grid: Grid, stand: Stand) -> Option<Stand> {
    let along = |at: i32, by: i32, most: i32| at.checked_add(by).filter(|at| (0..=most).contains(at));
    let Stand { x, y, direction } = stand;
    let (x, y) = match direction {
        Direction::North => (x, along(y, 1, grid.y)?),
        Direction::South => (x, along(y, -1, grid.y)?),
        Direction::East => (along(x, 1, grid.x)?, y),
        Direction::West => (along(x, -1, grid.x)?, y),
    };
    Some(Stand { x, y, direction })
}

#[cfg(test)]
mod tests;
