//! Finds the binaries of a PostgreSQL that will do: new enough, with our extensions, and runnable by the account.

use super::{account::Account, cluster::Progress, error::Error, fetch, tool};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// The oldest major version we are tested with; `DATABASE_URL` has the same bound.
const OLDEST: u32 = 15;

/// apalis keeps metadata in `hstore`, the search its trigrams in `pg_trgm`: a server package without contrib has neither.
const EXTENSIONS: [&str; 2] = ["hstore", "pg_trgm"];

/// Telling its version takes a program 10 ms; a slow disk may have to read it first.
const ASK_LIMIT: Duration = Duration::from_secs(20);

/// Debian and Ubuntu keep every major version in its own folder here, off `PATH`.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Where to look for binaries: what the variable `PG_BIN_DIR` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Search {
    /// Unset: the system's, else our cache, else fetched.
    #[default]
    Anywhere,
    /// This folder and no other.
    Folder(PathBuf),
    /// `fetch`: our cache, else fetched, whatever the system has.
    Fetch,
}

impl Search {
    /// Reads the value of `PG_BIN_DIR`; empty counts as unset.
    pub fn parse(value: &str) -> Self {
        match value.trim() {
            "" => Self::Anywhere,
            "fetch" => Self::Fetch,
            folder => Self::Folder(folder.into()),
        }
    }
}

/// A folder of binaries that will do.
#[derive(Debug)]
pub(super) struct Binaries {
    pub bin: PathBuf,
    pub major: u32,
}

/// Finds binaries; those of the major version `wanted` when there are data already.
pub(super) async fn locate(
    search: &Search,
    account: &Account,
    wanted: Option<u32>,
    cache: &Path,
    data: &Path,
    progress: &Progress,
) -> Result<Binaries, Error> {
    let mut tried = Vec::new();
    let mut others = Vec::new();
    let places = match search {
        Search::Folder(folder) => {
            let folder = fs::canonicalize(folder)
                .map_err(|error| Error::BinDir { reason: format!("{}: {error}", folder.display()) })?;
            vec![folder]
        }
        Search::Anywhere => installed().await.into_iter().chain(fetch::cached(cache)).collect(),
        Search::Fetch => fetch::cached(cache),
    };
    for bin in places {
        match examine(&bin, account).await {
            Ok(found) if wanted.is_none_or(|wanted| wanted == found.major) => return Ok(found),
            Ok(other) => others.push(format!("{} ({})", other.major, other.bin.display())),
            Err(reason) if matches!(search, Search::Folder(_)) => return Err(Error::BinDir { reason }),
            Err(reason) => tried.push(reason),
        }
    }
    // Fetching helps when nothing is here, or exactly the version that we fetch is wanted.
    let helps = wanted.is_none_or(|wanted| wanted == fetch::MAJOR) && !matches!(search, Search::Folder(_));
    if helps {
        match fetch::fetch(cache, progress).await {
            Ok(bin) => match examine(&bin, account).await {
                Ok(found) => return Ok(found),
                Err(reason) => tried.push(reason),
            },
            Err(reasons) => tried.extend(reasons),
        }
    }
    match wanted {
        Some(made_by) if !others.is_empty() || !helps => {
            let found = if others.is_empty() { "no other version".into() } else { others.join(", ") };
            Err(Error::Version { data: data.into(), made_by, found })
        }
        _ => {
            let tried = tried.iter().map(|reason| format!("  {}", reason.replace('\n', "\n    ")));
            Err(Error::NoBinaries { tried: tried.collect::<Vec<_>>().join("\n") })
        }
    }
}

/// Folders in which a system has PostgreSQL, best first.
async fn installed() -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(DEBIAN)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok())
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").exists())
        .collect();
    versions.sort_unstable_by_key(|(version, _)| std::cmp::Reverse(*version));
    let mut places: Vec<PathBuf> = versions.into_iter().map(|(_, bin)| bin).collect();

    let mut ask = Command::new("pg_config");
    ask.arg("--bindir");
    let named = tool::run(ask, ASK_LIMIT).await.ok().map(|bin| PathBuf::from(bin.trim()));
    let on_path = std::env::var_os("PATH").and_then(|path| {
        // Often a link: the other binaries lie beside its target.
        std::env::split_paths(&path).find_map(|folder| fs::canonicalize(folder.join("initdb")).ok())
    });
    let on_path = on_path.and_then(|initdb| initdb.parent().map(Path::to_path_buf));
    // pg_config comes with the client library too, and then names a folder without a server.
    for bin in [named, on_path].into_iter().flatten().filter(|bin| bin.join("initdb").exists()) {
        if !places.contains(&bin) {
            places.push(bin);
        }
    }
    places
}

/// Asks the binaries themselves, as the account that will run them: `initdb --show` names version and shared files
/// in any distribution's layout, and fails when this account cannot reach them or the server is not beside it.
async fn examine(bin: &Path, account: &Account) -> Result<Binaries, String> {
    let place = bin.display();
    let mut ask = account.command(bin.join("initdb"));
    ask.args(["--show", "-D", "/nonexistent"]);
    let said = tool::run(ask, ASK_LIMIT)
        .await
        .map_err(|error| format!("{place}: the account {} cannot use it: {error}", account.name))?;
    let value = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let version = value("VERSION").unwrap_or_default();
    let major = version.split(|c: char| !c.is_ascii_digit()).next().and_then(|major| major.parse().ok());
    let (Some(major), Some(share)) = (major, value("share_path")) else {
        return Err(format!("{place}: initdb --show names no version"));
    };
    if major < OLDEST {
        return Err(format!("{place}: version {major} is older than {OLDEST}"));
    }
    for extension in EXTENSIONS {
        if !Path::new(share).join("extension").join(format!("{extension}.control")).exists() {
            return Err(format!("{place}: the extension {extension} is missing (it is in the contrib package)"));
        }
    }
    Ok(Binaries { bin: bin.to_path_buf(), major })
}
