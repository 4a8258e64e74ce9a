//! Promise 15: everything works through PgBouncer in transaction mode, where clients share a few sessions.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::Command,
    str::FromStr,
    time::{Duration, Instant},
};

use nix::{sys::signal::Signal, unistd::geteuid};
use runtime::migrate;
use sqlx::{AssertSqlSafe, postgres::PgConnectOptions};

use crate::{
    faults::processor::Processor,
    harness::{
        database, eventually, needs,
        port::Port,
        process::{Api, Process, http_client, start_worker},
        scratch::Scratch,
    },
};

const WEBHOOKS: usize = 200;
/// Fewer than the connections of one process, so that they must share sessions.
const SESSIONS: usize = 3;
const SOON: Duration = Duration::from_secs(30);

/// A private PgBouncer for one test.
struct Bouncer {
    url: String,
    _process: Process,
    _port: Port,
    _scratch: Scratch,
}

impl Bouncer {
    async fn start(program: &std::path::Path, database: &str) -> Self {
        Self::start_with(program, database, "pool_mode = transaction").await
    }

    async fn start_with(program: &std::path::Path, database: &str, more: &str) -> Self {
        let scratch = Scratch::new();
        let server = PgConnectOptions::from_str(database).expect("the harness's URL");
        let sockets = server.get_socket().expect("a server with a socket");
        let (user, name) = (server.get_username(), server.get_database().expect("a database"));
        let port = Port::free();
        let (users, config) = (scratch.join("users.txt"), scratch.join("pgbouncer.ini"));
        fs::write(&users, format!("\"{user}\" \"\"\n")).expect("a list of users");
        fs::write(
            &config,
            format!(
                "[databases]\n* = host={} port={} user={user}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
                 listen_port = {port}\nunix_socket_dir =\nauth_type = any\nauth_file = {}\n\
                 {more}\ndefault_pool_size = {SESSIONS}\n",
                sockets.display(),
                server.get_port(),
                users.display(),
            ),
        )
        .expect("a configuration");
        for file in [&users, &config] {
            fs::set_permissions(file, fs::Permissions::from_mode(0o644)).expect("readable files");
        }
        let mut command = Command::new(program);
        if geteuid().is_root() {
            // PgBouncer refuses to run as root. The owner of the server may use its socket and read these files.
            let owner = fs::metadata(sockets).expect("the server's folder");
            use std::os::unix::{fs::MetadataExt, process::CommandExt};
            command.uid(owner.uid()).gid(owner.gid());
        }
        command.arg("--quiet").arg(&config);
        let process = Process::run("pgbouncer", command, &[]);
        let url = format!("postgres://{user}@127.0.0.1:{port}/{name}?sslmode=disable");
        eventually("pgbouncer accepts connections", SOON, async || {
            tokio::net::TcpStream::connect(port.address()).await.is_ok()
        })
        .await;
        Self { url, _process: process, _port: port, _scratch: scratch }
    }
}

const QUICK: [(&str, &str); 6] = [
    ("DATABASE_POOLER", "transaction"),
    // Tracing changes how statements are built. No collector listens on port 1.
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
    ("QUEUE_LEASE_SECONDS", "1"),
    ("QUEUE_HEARTBEAT_SECONDS", "0.2"),
    ("QUEUE_RESCUE_SECONDS", "0.2"),
    ("PROCESSING_DELAY_SECONDS", "0.3"),
];

#[tokio::test]
async fn webhooks_settle_through_pgbouncer_and_a_killed_worker_is_replaced() {
    let Some(program) = needs::program("pgbouncer") else { return };
    let database = database::fresh().await;
    let pool = database.pool().await;
    let bouncer = Bouncer::start(&program, &database.url).await;
    // Without the setting, a process waits and logs which setting it needs.
    Process::start(&["worker"], &[("DATABASE_URL", &*bouncer.url)])
        .wait_for_line("set DATABASE_POOLER=transaction")
        .await;

    let processor = Processor::start(Duration::from_millis(500)).await;
    let variables = [&QUICK[..], &[("PROCESSOR_URL", &processor.url)]].concat();
    let api = Api::start(&bouncer.url, &variables).await;
    let mut victim = start_worker(&bouncer.url, &variables).await;
    let begun = Instant::now();
    let http = http_client();
    for n in 0..WEBHOOKS {
        let webhook = serde_json::json!({
            "transaction_id": format!("txn_{n}"), "source_account": "acc_user_1",
            "destination_account": "acc_merchant_1", "amount": 1500, "currency": "INR",
        });
        let response = http.post(format!("{}/v1/webhooks/transactions", api.url)).json(&webhook).send().await.unwrap();
        assert_eq!(response.status(), 202, "{n}");
    }
    let acknowledged = begun.elapsed();
    eventually("jobs are running", SOON, async || processor.calls() >= 50).await;
    victim.signal(Signal::SIGKILL);
    victim.wait_for_exit(SOON).await;
    let killed = Instant::now();
    let mut other = start_worker(&bouncer.url, &variables).await;
    let settled = "SELECT count(*) = $1 FROM transactions WHERE status = 'PROCESSED'";
    eventually("all are settled", SOON, async || {
        sqlx::query_scalar(settled).bind(WEBHOOKS as i64).fetch_one(&pool).await.unwrap()
    })
    .await;
    let recovered = killed.elapsed();
    let crashes: i64 = sqlx::query_scalar("SELECT sum(crashes) FROM apalis.jobs").fetch_one(&pool).await.unwrap();
    assert!(crashes > 0 && processor.repeated_calls() > 0, "the dead worker's jobs were rescued");
    let metrics = http_client().get(format!("{}/metrics", api.url)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("millrace_listener_up 0"), "notifications do not work here, and the metric shows it");

    // Every transaction has the settings that a session has without a pooler.
    let (name, sessions): (Option<String>, i64) = sqlx::query_as(
        "SELECT max(application_name), count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name LIKE '%through a pooler'",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert!(name.is_some() && sessions <= SESSIONS as i64, "{sessions} sessions");
    for process in [&mut other, &mut { api.process }] {
        assert_stops(process).await;
    }
    println!(
        "through PgBouncer with {SESSIONS} sessions: {WEBHOOKS} webhooks one by one in {acknowledged:.1?}, all settled \
         {recovered:.1?} after a worker with {crashes} jobs was killed"
    );
}

async fn assert_stops(process: &mut Process) {
    process.signal(Signal::SIGTERM);
    let status = process.wait_for_exit(SOON).await;
    assert!(status.success(), "{status}\n{}", process.log());
    for error in ["prepared statement", "unsupported startup parameter"] {
        assert!(!process.log().contains(error), "{}", process.log());
    }
}

/// Each transaction gets the settings that a session cannot carry, and the names of statements do not clash.
#[tokio::test]
async fn transactions_through_pgbouncer_have_our_settings() {
    let Some(program) = needs::program("pgbouncer") else { return };
    let database = database::fresh().await;
    let bouncer = Bouncer::start(&program, &database.url).await;
    let through = runtime::db::Database::parse(&bouncer.url).unwrap();
    let pool = through.with_pooler(runtime::pooler::Pooler::Transaction).pool("test", 10);
    let mut tx = runtime::executor::begin(&pool).await.unwrap();
    for (name, value) in [
        ("synchronous_commit", "on"),
        ("statement_timeout", "5s"),
        ("plan_cache_mode", "force_generic_plan"),
        ("idle_in_transaction_session_timeout", "15s"),
        ("TimeZone", "UTC"),
    ] {
        let shown: String =
            sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(&mut tx).await.unwrap();
        assert_eq!(shown, value, "{name}");
    }
    tx.rollback().await.unwrap();
    // As many tasks as sessions, so that on a busy machine none waits too long for a session.
    let tasks = (0..10i64).map(|task| {
        let pool = pool.clone();
        async move {
            for n in task * 50..(task + 1) * 50 {
                let statement = AssertSqlSafe(format!("SELECT $1::int8 + {}", n % 7));
                let query = sqlx::query_scalar::<_, i64>(statement).bind(n);
                assert_eq!(query.fetch_one(runtime::executor::transactional(&pool)).await.unwrap(), n + n % 7);
            }
        }
    });
    tasks.collect::<tokio::task::JoinSet<_>>().join_all().await;
    migrate::check(&pool).await.unwrap();
    pool.close().await;
}

/// The pooler gives each client its own session, but drops the start-up options.
#[tokio::test]
async fn our_settings_apply_although_a_pooler_drops_the_startup_options() {
    let Some(program) = needs::program("pgbouncer") else { return };
    let database = database::fresh().await;
    let off = AssertSqlSafe(format!("ALTER DATABASE {} SET synchronous_commit = off", database.name));
    sqlx::raw_sql(off).execute(&database.pool().await).await.unwrap();
    let mode = "pool_mode = session\nignore_startup_parameters = extra_float_digits,options";
    let bouncer = Bouncer::start_with(&program, &database.url, mode).await;
    let pool = runtime::db::Database::parse(&bouncer.url).unwrap().pool("test", 2);
    for (name, value) in [
        ("synchronous_commit", "on"),
        ("plan_cache_mode", "force_generic_plan"),
        ("statement_timeout", "5s"),
        ("default_transaction_isolation", "read committed"),
        ("row_security", "off"),
    ] {
        let shown = sqlx::query_scalar::<_, String>("SELECT current_setting($1)").bind(name);
        assert_eq!(shown.fetch_one(runtime::executor::repeatable(&pool)).await.unwrap(), value, "{name}");
    }
    pool.close().await;
    let mut worker = Process::start(&["worker"], &[("DATABASE_URL", &*bouncer.url)]);
    worker.wait_for_line("a pooler drops the start-up options").await;
    worker.wait_for_line("worker started").await;
}

/// A probe's row stays locked from its read to the commit, although clients share sessions.
#[tokio::test]
async fn probes_move_one_after_the_other_through_pgbouncer() {
    use jobs::mars_probes::{
        MoveOutcome, Probes,
        grid::{Direction, Grid},
    };
    let Some(program) = needs::program("pgbouncer") else { return };
    let database = database::fresh().await;
    let bouncer = Bouncer::start(&program, &database.url).await;
    let through = runtime::db::Database::parse(&bouncer.url).unwrap();
    let pool = through.with_pooler(runtime::pooler::Pooler::Transaction).pool("test", 10);
    let probes = Probes::start(&pool);
    let probe = probes.create(Grid { x: 0, y: 40 }, Direction::North).await.unwrap();
    let moves = (0..50).map(|_| {
        let probes = probes.clone();
        async move { matches!(probes.send(probe.id, "M").await.unwrap(), MoveOutcome::Done(_)) }
    });
    let moved = moves.collect::<tokio::task::JoinSet<_>>().join_all().await;
    assert_eq!(moved.iter().filter(|moved| **moved).count(), 40, "each move once, up to the edge of the grid");
    assert_eq!(probes.page(None, 2).await.unwrap().first().map(|placed| placed.position.y), Some(40));
    assert!(matches!(probes.send(probe.id, "x").await.unwrap(), MoveOutcome::Invalid(_)));
    let insert = "INSERT INTO probes (id, grid_id, grid_x, grid_y, x, y, direction)
                  SELECT gen_random_uuid(), gen_random_uuid(), 1, 1, 0, 0, 'WEST' FROM generate_series(1, 2500)";
    sqlx::query(insert).execute(&database.pool().await).await.unwrap();
    let (mut listing, mut listed) = (probes.listing(None).await.unwrap(), 0);
    while let Some(page) = listing.next().await {
        listed += page.unwrap().probes.len();
    }
    assert_eq!(listed, 2501);
    pool.close().await;
}
