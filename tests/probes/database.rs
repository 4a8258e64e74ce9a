//! The feature against the database, without HTTP: stored rows, constraints, locks and outages.

use jobs::mars_probes::{
    MoveOutcome, Probes,
    grid::{Direction, Grid, InvalidCommand, OutOfGrid, Position},
};
use runtime::{db::Database, error::Error};
use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::harness::database::{self, TestDatabase};

async fn start_feature() -> (Probes, PgPool, TestDatabase) {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let sessions = Database::parse(&database.url).expect("the harness's URL").pool("test", 4);
    (Probes::start(&sessions), pool, database)
}

async fn select_position(pool: &PgPool, id: Uuid) -> (i32, i32, String) {
    let row = sqlx::query("SELECT x, y, direction FROM probes WHERE id = $1").bind(id).fetch_one(pool).await.unwrap();
    (row.get(0), row.get(1), row.get(2))
}

#[tokio::test]
async fn a_probe_is_stored_and_moved() {
    let (probes, pool, _database) = start_feature().await;
    let probe = probes.create(Grid { x: 5, y: 5 }, Direction::North).await.unwrap();
    assert_eq!(select_position(&pool, probe.id).await, (0, 0, "NORTH".into()));
    let there = Position { x: 1, y: 1, direction: Direction::East };
    assert_eq!(probes.send(probe.id, " mrM ").await.unwrap(), MoveOutcome::Done(there));
    assert_eq!(select_position(&pool, probe.id).await, (1, 1, "EAST".into()));
}

#[tokio::test]
async fn refused_commands_change_nothing_and_hold_no_lock() {
    let (probes, pool, _database) = start_feature().await;
    let grid = Grid { x: 3, y: 0 };
    let probe = probes.create(grid, Direction::East).await.unwrap();
    let before: String = sqlx::query_scalar("SELECT xmin::text FROM probes").fetch_one(&pool).await.unwrap();
    let unknown = Uuid::now_v7();
    for _ in 0..20 {
        assert_eq!(probes.send(probe.id, "MMMM").await.unwrap(), MoveOutcome::OutOfGrid(OutOfGrid(grid)));
        assert_eq!(probes.send(probe.id, "MMMMX").await.unwrap(), MoveOutcome::Invalid(InvalidCommand('X')));
        assert_eq!(
            probes.send(unknown, "X").await.unwrap(),
            MoveOutcome::Unknown,
            "an unknown probe is reported before its command"
        );
        assert_eq!(probes.send(unknown, "M").await.unwrap(), MoveOutcome::Unknown);
    }
    assert_eq!(select_position(&pool, probe.id).await, (0, 0, "EAST".into()));
    let after: String = sqlx::query_scalar("SELECT xmin::text FROM probes").fetch_one(&pool).await.unwrap();
    assert_eq!(before, after, "the row is not written again");
    assert!(matches!(probes.send(probe.id, "MMM").await.unwrap(), MoveOutcome::Done(_)), "the row is not locked");
}

#[tokio::test]
async fn the_table_rejects_impossible_probes() {
    let (_, pool, _database) = start_feature().await;
    for (values, constraint) in [
        ("0, 0, 0, 0, 'NORTH'", "probes_grid_has_room"),
        ("-1, 5, 0, 0, 'NORTH'", "probes_grid_has_room"),
        ("3, 0, 4, 0, 'NORTH'", "probes_inside_grid"),
        ("3, 0, 0, -1, 'NORTH'", "probes_inside_grid"),
        ("3, 3, 0, 0, 'UP'", "probes_direction_known"),
    ] {
        let insert = format!(
            "INSERT INTO probes (id, grid_id, grid_x, grid_y, x, y, direction)
             VALUES (gen_random_uuid(), gen_random_uuid(), {values})"
        );
        let error = sqlx::query(sqlx::AssertSqlSafe(insert)).execute(&pool).await.expect_err(values);
        let violated = error.as_database_error().and_then(|error| error.constraint().map(str::to_owned));
        assert_eq!(violated.as_deref(), Some(constraint), "{values}: {error}");
    }
}

/// Moves of one probe wait for its row in at most four sessions, so that other requests get one.
#[tokio::test]
async fn many_moves_of_one_probe_leave_sessions_to_others() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let sessions = Database::parse(&database.url).expect("the harness's URL").pool("test", 6);
    let probes = Probes::start(&sessions);
    let probe = probes.create(Grid { x: 100, y: 100 }, Direction::North).await.unwrap();
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("SELECT FROM probes FOR UPDATE").execute(&mut *holder).await.unwrap();
    let moves: Vec<_> = (0..50)
        .map(|_| {
            let probes = probes.clone();
            tokio::spawn(async move {
                // A move that has waited for 5 s is refused, as on a busy machine. Then it is sent again.
                for _ in 0..10 {
                    let moved = probes.send(probe.id, "M").await;
                    if !matches!(moved, Err(Error::Unavailable(_))) {
                        return moved;
                    }
                }
                probes.send(probe.id, "M").await
            })
        })
        .collect();
    crate::harness::eventually("four wait for the row", std::time::Duration::from_secs(20), async || {
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        sqlx::query_scalar::<_, i64>(waiting).fetch_one(&pool).await.unwrap() == 4
    })
    .await;
    probes.create(Grid { x: 1, y: 1 }, Direction::North).await.expect("a session");
    assert_eq!(probes.page(None, 10).await.expect("a session").len(), 2);
    holder.rollback().await.unwrap();
    for moved in moves {
        assert!(matches!(moved.await.unwrap(), Ok(MoveOutcome::Done(_))));
    }
    assert_eq!(select_position(&pool, probe.id).await, (0, 50, "NORTH".into()));
}

#[tokio::test]
async fn an_unreachable_database_is_unavailable() {
    let (probes, pool, database) = start_feature().await;
    let probe = probes.create(Grid { x: 5, y: 5 }, Direction::North).await.unwrap();
    pool.close().await;
    let missing_url = database.url.replace(&database.name, "there_is_no_such_database");
    let unreachable = Probes::start(&Database::parse(&missing_url).expect("a URL").pool("test", 1));
    assert!(matches!(unreachable.send(probe.id, "M").await, Err(Error::Unavailable(_))));
    assert!(matches!(unreachable.listing(None).await, Err(Error::Unavailable(_))));
}
