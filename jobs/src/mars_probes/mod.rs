//! Mars probes: each has its own grid. Clients move it by command strings, which are applied completely or not at all.

pub mod events;
pub mod grid;
pub mod listing;
mod store;

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use uuid::Uuid;

pub use self::grid::ListedProbe;
use self::{
    events::{FINISHED, STARTED},
    grid::{Commands, Direction, Grid, InvalidCommand, OutOfGrid, Position, Probe},
    listing::Listing,
};
use runtime::{db::Pool, error::Error, executor, task::run_to_completion};

/// The limit of concurrent moves in one process. Moves of one probe wait for its row lock, each on its own connection.
/// Without the limit, many moves of one probe would use up the connection pool.
const MAX_CONCURRENT_MOVES: usize = 4;
/// How long a move waits for its turn: the same as the wait for a pooled connection.
const MOVE_QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// The outcome of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveOutcome {
    /// The probe has moved to this position, and the move is committed.
    Done(Position),
    /// The probe does not exist.
    Unknown,
    /// The command string contains an invalid character.
    Invalid(InvalidCommand),
    /// The commands lead out of the grid.
    OutOfGrid(OutOfGrid),
}

/// The feature. Clones share its state.
#[derive(Clone)]
pub struct Probes {
    pool: Pool,
    moves: Arc<Semaphore>,
}

impl Probes {
    /// Starts the feature.
    pub fn start(pool: &Pool) -> Self {
        events::describe();
        Self { pool: pool.clone(), moves: Arc::new(Semaphore::new(MAX_CONCURRENT_MOVES)) }
    }

    /// Creates a probe at (0, 0) of a new grid.
    ///
    /// # Errors
    /// Returns [`Error::Unavailable`] if the database cannot take the write now.
    pub async fn create(&self, grid: Grid, direction: Direction) -> Result<Probe, Error> {
        // Generated here, not by the database: the `started` event contains the id before the insert.
        let (id, grid_id) = (Uuid::now_v7(), Uuid::now_v7());
        let probe = Probe { id, grid, position: Position { x: 0, y: 0, direction } };
        let pool = self.pool.clone();
        run_to_completion(async move {
            events::record_created(STARTED, &probe, grid_id);
            store::insert(&pool, &probe, grid_id).await?;
            events::record_created(FINISHED, &probe, grid_id);
            Ok(probe)
        })
        .await
    }

    /// Moves a probe by a command string. Moves of one probe are serialised across all processes: each locks the
    /// probe's row from the read to the commit.
    ///
    /// # Errors
    /// Returns [`Error::Unavailable`] if the database cannot take the write now, or if too many moves wait.
    pub async fn send(&self, id: Uuid, command: &str) -> Result<MoveOutcome, Error> {
        let commands = match Commands::parse(command) {
            Ok(commands) => commands,
            // An invalid command needs neither a turn nor a lock.
            Err(invalid) => {
                let known = store::exists(&self.pool, id).await?;
                return Ok(if known { MoveOutcome::Invalid(invalid) } else { MoveOutcome::Unknown });
            }
        };
        let turn = tokio::time::timeout(MOVE_QUEUE_TIMEOUT, self.moves.clone().acquire_owned()).await;
        let busy = |_| Error::Unavailable("too many moves at once".into());
        let turn = turn.map_err(busy)?.map_err(|closed| Error::Internal(closed.to_string()))?;
        let pool = self.pool.clone();
        run_to_completion(async move {
            let _turn = turn;
            move_probe(&pool, id, &commands).await
        })
        .await
    }

    /// Streams all probes after the number `after`, oldest first. A slow reader holds neither a connection nor more
    /// than a few pages of memory.
    ///
    /// # Errors
    /// Returns [`Error::Unavailable`] if the database cannot be read now.
    pub async fn listing(&self, after: Option<i64>) -> Result<Listing, Error> {
        Listing::begin(&self.pool, after.unwrap_or(0)).await
    }

    /// Returns one page of at most `limit` probes after the number `after`, oldest first.
    ///
    /// # Errors
    /// Returns [`Error::Unavailable`] if the database cannot be read now.
    pub async fn page(&self, after: Option<i64>, limit: u32) -> Result<Vec<ListedProbe>, Error> {
        store::page(&self.pool, after.unwrap_or(0), i64::MAX, limit.into()).await
    }
}

/// Moves a probe under its row lock.
async fn move_probe(pool: &Pool, id: Uuid, commands: &Commands) -> Result<MoveOutcome, Error> {
    let mut tx = executor::begin(pool).await?;
    let Some(probe) = store::lock(&mut tx, id).await? else { return Ok(MoveOutcome::Unknown) };
    let to = match grid::apply(probe.grid, probe.position, commands) {
        Ok(to) => to,
        Err(error) => return Ok(MoveOutcome::OutOfGrid(error)),
    };
    events::record_command_sent(STARTED, id, commands, probe.position, to);
    store::set_position(&mut tx, id, to).await?;
    tx.commit().await?;
    events::record_command_sent(FINISHED, id, commands, probe.position, to);
    Ok(MoveOutcome::Done(to))
}
