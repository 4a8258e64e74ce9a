//! Finds usable binaries of PostgreSQL: new enough, with our extensions, and executable by the account.

use super::{
    account::Account,
    error::Error,
    fetch,
    settings::{Progress, Search},
    tool,
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::process::Command;

/// The oldest major version that is tested; `DATABASE_URL` has the same limit.
const MIN_MAJOR: u32 = 15;

/// apalis needs `hstore`, the search needs `pg_trgm`. Server packages without contrib lack both.
const EXTENSIONS: [&str; 2] = ["hstore", "pg_trgm"];

/// A program prints its version within 10 ms; reading it from a slow disk takes longer.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(20);

/// Debian and Ubuntu install every major version into its own folder here, outside `PATH`.
const DEBIAN_DIRECTORY: &str = "/usr/lib/postgresql";

/// A folder of usable binaries.
#[derive(Debug)]
pub(super) struct Binaries {
    pub bin: PathBuf,
    pub major: u32,
}

/// Finds binaries. `wanted` is the major version of existing data.
pub(super) async fn locate(
    search: &Search,
    account: &Account,
    wanted: Option<u32>,
    cache: &Path,
    data: &Path,
    progress: &Progress,
) -> Result<Binaries, Error> {
    let mut tried = Vec::new();
    let mut other_versions = Vec::new();
    let directories = match search {
        Search::Folder(folder) => {
            let folder = fs::canonicalize(folder)
                .map_err(|error| Error::BinDir { reason: format!("{}: {error}", folder.display()) })?;
            vec![folder]
        }
        Search::Anywhere => installed_directories().await.into_iter().chain(fetch::cached_directories(cache)).collect(),
        Search::Fetch => fetch::cached_directories(cache),
    };
    for bin in directories {
        match check_binaries(&bin, account).await {
            Ok(found) if wanted.is_none_or(|wanted| wanted == found.major) => return Ok(found),
            Ok(other) => other_versions.push(format!("{} ({})", other.major, other.bin.display())),
            Err(reason) if matches!(search, Search::Folder(_)) => return Err(Error::BinDir { reason }),
            Err(reason) => tried.push(reason),
        }
    }
    // Fetching helps if any version is usable, or if the fetched version is the wanted one.
    let can_fetch = wanted.is_none_or(|wanted| wanted == fetch::MAJOR) && !matches!(search, Search::Folder(_));
    if can_fetch {
        match fetch::fetch(cache, progress).await {
            Ok(bin) => match check_binaries(&bin, account).await {
                Ok(found) => return Ok(found),
                Err(reason) => tried.push(reason),
            },
            Err(reasons) => tried.extend(reasons),
        }
    }
    match wanted {
        Some(made_by) if !other_versions.is_empty() || !can_fetch => {
            let found = if other_versions.is_empty() { "no other version".into() } else { other_versions.join(", ") };
            Err(Error::Version { data: data.into(), made_by, found })
        }
        _ => {
            let tried = tried.iter().map(|reason| format!("  {}", reason.replace('\n', "\n    ")));
            Err(Error::NoBinaries { tried: tried.collect::<Vec<_>>().join("\n") })
        }
    }
}

/// The folders of installed binaries, in order of preference.
async fn installed_directories() -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(DEBIAN_DIRECTORY)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").exists())
        .collect();
    versions.sort_unstable_by_key(|(version, _)| std::cmp::Reverse(*version));
    let mut directories: Vec<PathBuf> = versions.into_iter().map(|(_, bin)| bin).collect();

    let named = tool::run(Command::new("pg_config").arg("--bindir"), PROGRAM_TIMEOUT).await;
    let named = named.ok().map(|bin| PathBuf::from(bin.trim()));
    let on_path = std::env::var_os("PATH").and_then(|path| {
        // It is often a link. The other binaries are in the folder of its target.
        std::env::split_paths(&path).find_map(|folder| fs::canonicalize(folder.join("initdb")).ok())
    });
    let on_path = on_path.and_then(|initdb| initdb.parent().map(Path::to_path_buf));
    // pg_config is also part of the client library. Then it names a folder without a server.
    for bin in [named, on_path].into_iter().flatten().filter(|bin| bin.join("initdb").exists()) {
        if !directories.contains(&bin) {
            directories.push(bin);
        }
    }
    directories
}

/// Checks binaries by running `initdb --show` under the server's account. It prints the version and the folder of shared
/// files in every distribution. It fails if the account cannot run it, or if its folder contains no server.
async fn check_binaries(bin: &Path, account: &Account) -> Result<Binaries, String> {
    let place = bin.display();
    let mut command = account.command(bin.join("initdb"));
    let output = tool::run(command.args(["--show", "-D", "/nonexistent"]), PROGRAM_TIMEOUT)
        .await
        .map_err(|error| format!("{place}: the account {} cannot run initdb: {error}", account.name))?;
    let value = |name: &str| output.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let version = value("VERSION").unwrap_or_default();
    let major = version.split(|c: char| !c.is_ascii_digit()).next().and_then(|major| major.parse().ok());
    let (Some(major), Some(share)) = (major, value("share_path")) else {
        return Err(format!("{place}: initdb --show prints no version"));
    };
    if major < MIN_MAJOR {
        return Err(format!("{place}: version {major} is older than {MIN_MAJOR}"));
    }
    for extension in EXTENSIONS {
        if !Path::new(share).join("extension").join(format!("{extension}.control")).exists() {
            return Err(format!("{place}: the extension {extension} is missing (it is in the contrib package)"));
        }
    }
    Ok(Binaries { bin: bin.to_path_buf(), major })
}
