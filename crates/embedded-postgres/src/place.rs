//! Where data and sockets lie: at the wanted place if the server's account reaches it, else where it does.

use super::{account::Account, cluster::Progress, error::Error};
use sha2::{Digest, Sha256};
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

/// Where a root process keeps what its server's account could not reach otherwise: below a 0700 home, say.
pub(super) const SYSTEM: &str = "/var/lib/millrace";

/// Others may pass through a folder of ours, but see nothing of it.
const PASSABLE: u32 = 0o711;

/// The kernel's limit for a socket's path on Linux; it is 103 on macOS, which the rest of the name leaves room for.
const SOCKET_PATH_LIMIT: usize = if cfg!(target_os = "macos") { 103 } else { 107 };

/// How PostgreSQL names the socket in its folder; no port is ever opened, the number is only part of the name.
const SOCKET_NAME: &str = ".s.PGSQL.5432";

/// Finds (and makes) the real folder for `directory`, and the account for what is in it.
pub(super) async fn settle(directory: &Path, progress: &Progress) -> Result<(PathBuf, Account), Error> {
    let home = make(directory)?;
    let account = Account::choose(&home.join("data"))?;
    if !account.dropped || account.reaches(&home).await {
        return Ok((home, account));
    }
    if home.join("data").exists() {
        return Err(Error::Place(format!(
            "the account {name} must run PostgreSQL, since it refuses root, but cannot reach the data in {home}: \
             make the folders above it passable (chmod o+x), or move it: mkdir -p {SYSTEM} && mv {home} {target} && \
             ln -s {target} {home}",
            name = account.name,
            home = home.display(),
            target = elsewhere(&home).display(),
        )));
    }
    let target = elsewhere(&home);
    let found = target.join("data").exists();
    passable(Path::new(SYSTEM))?;
    passable(&target)?;
    // Another process may be doing the same this moment: what counts is where the link leads in the end.
    let _ = fs::remove_dir(&home);
    let linked = symlink(&target, &home);
    if fs::canonicalize(&home).ok().as_deref() != Some(&target) {
        return Err(Error::Place(format!(
            "the account {} cannot enter {home}, and no link to {} can take its place{}: remove {home}, which holds no \
             data, and start again",
            account.name,
            target.display(),
            linked.err().map(|error| format!(" ({error})")).unwrap_or_default(),
            home = home.display(),
        )));
    }
    let account = Account::choose(&target.join("data"))?;
    if !account.reaches(&target).await {
        return Err(Error::Place(format!(
            "the account {} cannot enter {}: see its mode",
            account.name,
            target.display()
        )));
    }
    progress(&format!(
        "The account {} cannot enter {}, so PostgreSQL's data {} {} (linked from there)",
        account.name,
        home.display(),
        if found { "from before is used again in" } else { "is kept in" },
        target.display()
    ));
    Ok((target, account))
}

/// The folder of sockets: in `home`, or in a short one when the name would grow too long for the kernel.
pub(super) fn sockets(home: &Path, account: &Account) -> Result<PathBuf, Error> {
    let inside = home.join("run");
    if fits(&inside) {
        return private(&inside, account);
    }
    let name = format!("millrace-{}", key(home));
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| {
        // It is the user's own and not root's or, after `su`, somebody else's.
        !account.dropped && fs::metadata(folder).is_ok_and(|folder| folder.uid() == account.uid)
    });
    let short = runtime.map(|folder| folder.join(&name)).filter(|folder| fits(folder));
    private(&short.unwrap_or_else(|| Path::new("/tmp").join(&name)), account)
}

fn fits(folder: &Path) -> bool {
    folder.join(SOCKET_NAME).as_os_str().len() <= SOCKET_PATH_LIMIT
}

/// A folder of mode 0700 of the account's. One that another user has made in `/tmp` before us is not taken.
fn private(folder: &Path, account: &Account) -> Result<PathBuf, Error> {
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::file("cannot make the folder of sockets", folder)(error));
        }
        _ => {}
    }
    let found = fs::symlink_metadata(folder).map_err(Error::file("cannot look at", folder))?;
    if !found.is_dir() || ![account.uid, nix::unistd::geteuid().as_raw()].contains(&found.uid()) {
        return Err(Error::Place(format!("{} is not ours: remove it and start again", folder.display())));
    }
    account.give(folder)?;
    Ok(folder.to_path_buf())
}

/// Makes the folder and returns its real path. A link whose target was removed leads to a new, empty one.
fn make(directory: &Path) -> Result<PathBuf, Error> {
    if let Ok(target) = fs::read_link(directory)
        && !directory.exists()
    {
        let target = directory.parent().unwrap_or(Path::new("/")).join(target);
        fs::create_dir_all(target.parent().unwrap_or(Path::new("/"))).map_err(Error::file("cannot make", &target))?;
        passable(&target)?;
    }
    fs::create_dir_all(directory).map_err(Error::file("cannot make", directory))?;
    let home = fs::canonicalize(directory).map_err(Error::file("cannot find", directory))?;
    // Settings of PostgreSQL and connection URLs are text.
    match home.to_str() {
        Some(_) => Ok(home),
        None => Err(Error::Place(format!("{} is not a name in UTF-8: choose another folder", home.display()))),
    }
}

/// Makes a folder that every account may pass through.
pub(super) fn passable(folder: &Path) -> Result<(), Error> {
    match fs::create_dir(folder) {
        Ok(()) => fs::set_permissions(folder, fs::Permissions::from_mode(PASSABLE)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
    .map_err(Error::file("cannot make", folder))
}

fn elsewhere(home: &Path) -> PathBuf {
    Path::new(SYSTEM).join(key(home))
}

/// Sixteen hexadecimal digits that stand for a path; stable over runs and versions, since data is found by it.
fn key(path: &Path) -> String {
    let hash = Sha256::digest(path.as_os_str().as_encoded_bytes());
    hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
