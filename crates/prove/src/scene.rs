//! One fault's stage: a fresh database, the API and two workers behind proxies, a processor, and clients that keep going.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use fastrand::Rng;
use nix::sys::signal::Signal;
use runtime::{clients::http, migrate, sabotage};
use sqlx::{Connection as _, PgConnection, postgres::PgPoolOptions};

use crate::{
    Options,
    child::{self, STOP_TIMEOUT},
    clients::{Clients, RateReport, Reply},
    early::EarlyCheck,
    history::{Event, History},
    members::{self, Member, SECRET},
    processor::Processor,
    proxy::Proxy,
    server::Server,
    store,
};

/// A condition that holds within a second on an idle machine gets this long, so that a busy one is no finding.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);
/// The number of webhooks before a fault begins, and before one that must find a planted bug.
const WARM_UP: usize = 50;
const SHORT_WARM_UP: usize = 10;
/// The lease of the workers. All their times are this much shorter than the product's 15 s.
pub(crate) const LEASE: Duration = Duration::from_secs(1);

/// Resources of one process that count as bounded.
const MOST_MEMORY: u64 = 1 << 30;
const MOST_FILES: usize = 1000;
/// Sessions of all processes together.
const MOST_SESSIONS: usize = 100;

/// The stage.
pub(crate) struct Scene<'a> {
    pub options: &'a Options,
    pub server: &'a mut Server,
    pub random: Rng,
    pub folder: PathBuf,
    pub database: String,
    pub history: Arc<History>,
    pub processor: Processor,
    /// The API, and two workers.
    pub members: Vec<Member>,
    pub clients: Clients,
    /// Set by a fault that measures its recovery itself.
    pub recovery: Option<Duration>,
    /// The fault may take memory.
    pub memory_is_unbounded: bool,
    most_memory: u64,
    most_files: usize,
}

/// The name and the subcommand of each process.
const PROCESSES: [(&str, &str); 3] = [("api", "api"), ("worker_1", "prove-worker"), ("worker_2", "prove-worker")];

/// The place of each process in [`Scene::members`].
pub(crate) const API: usize = 0;
pub(crate) const WORKERS: [usize; 2] = [1, 2];

/// Where a fault runs.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// For the history and the logs.
    pub folder: PathBuf,
    /// The name of its scratch database.
    pub database: String,
}

/// Migrates an empty database, and adds the triggers and the roles of the proof.
///
/// # Errors
/// When the server refuses it.
pub(crate) async fn prepare(server: &Server, database: &str) -> Result<()> {
    let pool = PgPoolOptions::new().max_connections(1).connect_with(server.options(database)?).await?;
    migrate::run(&pool.clone().into()).await?;
    pool.close().await;
    let mut session = store::connect(&server.options(database)?).await?;
    store::observe(&mut session).await?;
    if server.has_roles() {
        for (name, _) in PROCESSES {
            store::create_role(&mut session, &members::role(name)).await?;
        }
    }
    // A template must have no session.
    Ok(session.close().await?)
}

impl<'a> Scene<'a> {
    /// Starts everything, and waits until webhooks are acknowledged.
    ///
    /// # Errors
    /// When a part does not start.
    pub(crate) async fn start(
        options: &'a Options,
        server: &'a mut Server,
        Place { folder, database }: Place,
        seed: u64,
    ) -> Result<Self> {
        // A run with the same seed may have left its own.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder)?;
        if !server.copy_template(&database).await? {
            server.create_database(&database).await?;
            prepare(server, &database).await?;
        }

        let history = Arc::new(History::create(&folder.join("history.jsonl"))?);
        let processor = Processor::start(history.clone()).await?;
        let mut random = Rng::with_seed(seed);
        let mut members = Vec::new();
        for (name, subcommand) in PROCESSES {
            let proxy = Proxy::start(server.target()?).await?;
            let mut variables = members::variables(server, &database, name, &proxy, &processor)?;
            variables.extend(options.sabotage.map(|bug| (sabotage::VARIABLE.to_owned(), bug.name().to_owned())));
            let program = options.program.clone();
            let child = members::spawn(&program, &folder, name, subcommand, &variables, &history)?;
            members.push(Member { name, subcommand, program, variables, child, proxy });
        }
        let http = http::client(|limits| limits.no_proxy().timeout(Duration::from_secs(30)))?;
        for member in &mut members {
            member.child.wait_for_line(members::ready_line(member.subcommand)).await?;
        }
        let api = members.first_mut().context("an API")?;
        let url = members::api_url(&api.child.wait_for_line(members::ready_line("api")).await?)?;
        let mut clients = Clients::start(http, &url, options.clients, history.clone(), &mut random);
        if let Some(rate) = options.rate {
            clients.add_rate(rate);
        }
        let mut scene = Self {
            options,
            server,
            random,
            folder,
            database,
            history,
            processor,
            members,
            clients,
            recovery: None,
            memory_is_unbounded: false,
            most_memory: 0,
            most_files: 0,
        };
        let warm_up = if options.sabotage.is_some() { SHORT_WARM_UP } else { WARM_UP };
        scene.run_until_acknowledged(warm_up).await?;
        Ok(scene)
    }

    /// The check that ends a fault as soon as it has found a broken promise.
    ///
    /// # Errors
    /// When the server is down.
    pub(crate) fn early_check(&self) -> Result<EarlyCheck> {
        Ok(EarlyCheck {
            history: self.history.clone(),
            database: self.server.options(&self.database)?,
            with_completions: self.server.has_roles(),
        })
    }

    /// A session of the proof in this fault's database, without a proxy.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub(crate) async fn session(&self) -> Result<PgConnection> {
        Ok(store::connect(&self.server.options(&self.database)?).await?)
    }

    /// Creates ids for tasks.
    pub(crate) fn task_ids(&mut self, count: usize) -> Vec<String> {
        // The first digit keeps the number within the 128 bits of a ULID; the others are also digits of its alphabet.
        (0..count).map(|_| format!("0{:025X}", self.random.u128(..) >> 28)).collect()
    }

    /// Records the begin or the end of a fault.
    pub(crate) fn note(&self, what: impl Into<String>) {
        self.history.record(Event::Fault { what: what.into() });
    }

    /// Lets the load run for this long.
    pub(crate) async fn run_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.sample();
            tokio::time::sleep(POLL.min(end.saturating_duration_since(Instant::now()))).await;
        }
    }

    /// Lets the load run for a random time, so that the next fault comes at a random moment.
    pub(crate) async fn run_for_random(&mut self, milliseconds: std::ops::Range<u64>) {
        let time = Duration::from_millis(self.random.u64(milliseconds));
        self.run_for(time).await;
    }

    /// Lets the load run until a condition holds.
    ///
    /// # Errors
    /// When it does not, within two minutes; `what` names it.
    pub(crate) async fn run_until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> Result<bool>) -> Result<()> {
        let begun = Instant::now();
        while !holds(self)? {
            if begun.elapsed() > PATIENCE {
                bail!("{what}: not within {PATIENCE:?}");
            }
            self.run_for(POLL).await;
        }
        Ok(())
    }

    /// Lets the load run until no job of a kind waits or runs.
    ///
    /// # Errors
    /// When one still does after two minutes.
    pub(crate) async fn run_until_no_job(&mut self, kind: &str) -> Result<()> {
        let (begun, mut session) = (Instant::now(), self.session().await?);
        while store::unfinished(&mut session, kind).await? > 0 {
            if begun.elapsed() > PATIENCE {
                bail!("jobs of the kind {kind} are not finished after {PATIENCE:?}");
            }
            self.run_for(POLL).await;
        }
        Ok(())
    }

    /// Lets the load run until this many more webhooks are acknowledged.
    ///
    /// # Errors
    /// When they are not, within two minutes.
    pub(crate) async fn run_until_acknowledged(&mut self, more: usize) -> Result<()> {
        let before = self.clients.acknowledged();
        let what = format!("{more} webhooks are acknowledged");
        self.run_until(&what, |scene| Ok(scene.clients.acknowledged() >= before + more)).await
    }

    /// Measures how long it takes until a new webhook is acknowledged and settled.
    ///
    /// # Errors
    /// When that does not happen within two minutes.
    pub(crate) async fn recover(&mut self) -> Result<Duration> {
        let (begun, client) = (Instant::now(), self.clients.extra());
        let id = format!("recovery-{}", self.random.u64(..));
        let mut is_acknowledged = false;
        while begun.elapsed() < PATIENCE {
            if !is_acknowledged {
                is_acknowledged = matches!(client.post(&id, 0).await, Reply::Acknowledged);
            } else if client.state(&id).await.is_some_and(|state| state.is_settled()) {
                return Ok(begun.elapsed());
            }
            self.run_for(Duration::from_millis(20)).await;
        }
        bail!("no new webhook was settled within {PATIENCE:?} after the fault")
    }

    /// Starts a process that has ended, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) async fn restart(&mut self, place: usize) -> Result<()> {
        let member = self.members.get_mut(place).context("a process")?;
        let Member { name, subcommand, program, variables, .. } = &*member;
        member.child = members::spawn(program, &self.folder, name, subcommand, variables, &self.history)?;
        let line = member.child.wait_for_line(members::ready_line(member.subcommand)).await?;
        if place == API {
            self.clients.redirect(&members::api_url(&line)?);
        }
        Ok(())
    }

    /// The process at this place.
    ///
    /// # Errors
    /// None: the places are constants.
    pub(crate) fn member(&mut self, place: usize) -> Result<&mut Member> {
        self.members.get_mut(place).context("a process")
    }

    /// Ends the load, waits until everything is settled, stops all processes, and adds the final state to the history.
    ///
    /// # Errors
    /// When a part of the product does not end, or the state cannot be read.
    pub(crate) async fn finish(mut self) -> Result<(Arc<History>, Option<RateReport>)> {
        let rate = self.clients.finish().await;
        let mut session = self.session().await?;
        let begun = Instant::now();
        while store::unsettled(&mut session).await? > 0 {
            if begun.elapsed() > PATIENCE {
                for example in store::describe_unsettled(&mut session).await? {
                    self.note(format!("not settled within {PATIENCE:?}: {example}"));
                }
                break;
            }
            self.sample();
            tokio::time::sleep(POLL).await;
        }
        self.check_resources(&mut session).await?;
        for place in 0..self.members.len() {
            self.stop(place).await?;
        }
        for event in store::final_state(&mut session, self.server.has_roles()).await? {
            self.history.record(event);
        }
        self.check_secrets()?;
        Ok((self.history.clone(), rate))
    }

    /// Asks a process to stop. It must end in time, with status 0.
    async fn stop(&mut self, place: usize) -> Result<()> {
        let history = self.history.clone();
        let member = self.member(place)?;
        if !member.child.is_running()? {
            history.record(Event::Broken { what: format!("{} had ended before it was stopped", member.name) });
            return Ok(());
        }
        member.child.signal(Signal::SIGTERM)?;
        match member.child.wait(STOP_TIMEOUT).await {
            Ok(status) if status.success() => {}
            Ok(status) => history.record(Event::Broken { what: format!("{} stopped with {status}", member.name) }),
            Err(error) => history.record(Event::Broken { what: error.to_string() }),
        }
        Ok(())
    }

    /// Remembers the highest use of resources.
    fn sample(&mut self) {
        for child in self.members.iter().map(|member| &member.child) {
            // A process that has ended uses nothing.
            self.most_memory = self.most_memory.max(child.memory().unwrap_or_default());
            self.most_files = self.most_files.max(child.open_files().unwrap_or_default());
        }
    }

    async fn check_resources(&self, session: &mut PgConnection) -> Result<()> {
        let (memory, files) = (self.most_memory, self.most_files);
        if memory > MOST_MEMORY && !self.memory_is_unbounded {
            self.history.record(Event::Broken { what: format!("a process used {} MiB of memory", memory >> 20) });
        }
        if files > MOST_FILES {
            self.history.record(Event::Broken { what: format!("a process had {files} open files") });
        }
        let sessions = store::sessions(session, "%").await?.len();
        if sessions > MOST_SESSIONS {
            self.history.record(Event::Broken { what: format!("the processes have {sessions} sessions") });
        }
        Ok(())
    }

    /// No output may contain a secret.
    fn check_secrets(&self) -> Result<()> {
        for name in self.members.iter().map(|member| member.name) {
            let found =
                child::count_lines_with(&self.folder.join(format!("{name}.log")), |line| line.contains(SECRET))?;
            if found > 0 {
                self.history.record(Event::Broken { what: format!("{found} lines of {name}.log contain a secret") });
            }
        }
        Ok(())
    }
}
