//! Probes on Mars: each on a grid of its own, moved by commands that it obeys wholly or not at all.
//!
//! | file | what |
//! |---|---|
//! | [`grid`] | where commands lead: pure |
//! | [`events`] | what the log and the metrics tell |
//! | [`listing`] | all probes, for readers of any speed |
//! | `store` | all SQL |

pub mod events;
pub mod grid;
pub mod listing;
mod store;

use std::{sync::Arc, time::Duration};

use sqlx::PgPool;
use tokio::sync::Semaphore;
use tracing::Instrument;
use uuid::Uuid;

use self::{
    events::{FINISHED, STARTED},
    grid::{Commands, Direction, Grid, InvalidCommand, OutOfGrid, Probe, Stand},
    listing::Listing,
};
use crate::{
    boot::{db::answered, pooler},
    error::Error,
};

/// Moves at once in one process. Those of one probe wait for each other in the database, each in a session: without this,
/// a crowd around one probe would take all sessions from everybody else.
const MOVES: usize = 4;
/// As long as one waits for a session.
const PATIENCE: Duration = Duration::from_secs(5);

/// A probe in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Where the list goes on after it.
    pub number: i64,
    pub id: Uuid,
    pub stand: Stand,
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// The probe stands there, and that is committed.
    Done(Stand),
    /// There is no such probe.
    Unknown,
    /// The command has a character that is none.
    Invalid(InvalidCommand),
    /// It leads out of the grid.
    Wall(OutOfGrid),
}

/// The feature. Clones share everything.
#[derive(Clone)]
pub struct Probes {
    pool: PgPool,
    moves: Arc<Semaphore>,
}

impl Probes {
    /// Starts the feature.
    pub fn start(pool: &PgPool) -> Self {
        events::describe();
        Self { pool: pool.clone(), moves: Arc::new(Semaphore::new(MOVES)) }
    }

    /// Records a probe at (0, 0) of a new grid.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database cannot take it now, as for every change here.
    pub async fn create(&self, grid: Grid, direction: Direction) -> Result<Probe, Error> {
        // Made here, not by the database: `started` names the probe before it is there.
        let (id, grid_id) = (Uuid::now_v7(), Uuid::now_v7());
        let probe = Probe { id, grid, stand: Stand { x: 0, y: 0, direction } };
        let pool = self.pool.clone();
        whole(async move {
            events::created(STARTED, &probe, grid_id);
            answered(store::insert(&pool, &probe, grid_id)).await?;
            events::created(FINISHED, &probe, grid_id);
            Ok(probe)
        })
        .await
    }

    /// Moves a probe by this command. Moves of one probe take place one after the other, whichever processes they come
    /// through: each holds the probe's row from its look at it to its commit.
    ///
    /// # Errors
    /// As [`Probes::create`].
    pub async fn send(&self, id: Uuid, command: &str) -> Result<Moved, Error> {
        let commands = match Commands::parse(command) {
            Ok(commands) => commands,
            // Nobody need be kept waiting for that.
            Err(invalid) => {
                let known = answered(store::is_known(&self.pool, id)).await?;
                return Ok(if known { Moved::Invalid(invalid) } else { Moved::Unknown });
            }
        };
        let turn = tokio::time::timeout(PATIENCE, self.moves.clone().acquire_owned()).await;
        let busy = |_| Error::Unavailable("too many moves at once".into());
        let turn = turn.map_err(busy)?.map_err(|closed| Error::Internal(closed.to_string()))?;
        let pool = self.pool.clone();
        whole(async move {
            let _turn = turn;
            answered(obey(&pool, id, &commands)).await
        })
        .await
    }

    /// All probes after this place, oldest first, for a reader of any speed.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database cannot be asked now.
    pub async fn listing(&self, after: Option<i64>) -> Result<Listing, Error> {
        Listing::begin(&self.pool, after.unwrap_or(0)).await
    }

    /// One page of at most `limit` probes after this place, oldest first.
    ///
    /// # Errors
    /// As [`Probes::listing`].
    pub async fn page(&self, after: Option<i64>, limit: u32) -> Result<Vec<Placed>, Error> {
        answered(store::page(&self.pool, after.unwrap_or(0), i64::MAX, limit.into())).await
    }
}

async fn obey(pool: &PgPool, id: Uuid, commands: &Commands) -> Result<Moved, Error> {
    let mut tx = pooler::begin(pool).await?;
    let Some(probe) = store::lock(&mut tx, id).await? else { return Ok(Moved::Unknown) };
    let to = match grid::apply(probe.grid, probe.stand, commands) {
        Ok(to) => to,
        Err(wall) => return Ok(Moved::Wall(wall)),
    };
    events::command_sent(STARTED, id, commands, probe.stand, to);
    store::place(&mut tx, id, to).await?;
    tx.commit().await?;
    events::command_sent(FINISHED, id, commands, probe.stand, to);
    Ok(Moved::Done(to))
}

/// In a task of its own: a caller who leaves must not come between a commit and the telling of it.
async fn whole<T: Send + 'static>(work: impl Future<Output = Result<T, Error>> + Send + 'static) -> Result<T, Error> {
    tokio::spawn(work.in_current_span()).await.unwrap_or_else(|error| Err(Error::Internal(error.to_string())))
}
