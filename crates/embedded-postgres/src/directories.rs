//! Folders for data and sockets: the requested ones if the server's account can enter them, else other ones.

use super::{account::Account, error::Error, settings::Progress};
use sha2::{Digest, Sha256};
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

/// The folder for data of root processes whose requested folder the server's account cannot enter, such as one in a
/// home folder of mode 0700.
pub(super) const SYSTEM_DIRECTORY: &str = "/var/lib/millrace";

/// Other accounts may pass through the folder, but not list it.
const PASSABLE_MODE: u32 = 0o711;

/// The kernel's limit for the length of a socket's path, in bytes.
const SOCKET_PATH_LIMIT: usize = if cfg!(target_os = "macos") { 103 } else { 107 };

/// PostgreSQL's name of the socket. The number is only a part of the name: no TCP port is opened.
const SOCKET_NAME: &str = ".s.PGSQL.5432";

/// Resolves `directory` to a real folder, which it creates if necessary, and chooses the account for its contents.
pub(super) async fn resolve(directory: &Path, progress: &Progress) -> Result<(PathBuf, Account), Error> {
    let home = create(directory)?;
    let account = Account::choose(&home.join("data"))?;
    if !account.switches_user || account.can_enter(&home).await {
        return Ok((home, account));
    }
    if home.join("data").exists() {
        return Err(Error::Environment(format!(
            "the account {name} must run PostgreSQL, since it refuses root, but cannot reach the data in {home}: \
             let others enter the folders above it (chmod o+x), or move it: \
             mkdir -p {SYSTEM_DIRECTORY} && mv {home} {target} && ln -s {target} {home}",
            name = account.name,
            home = home.display(),
            target = system_path(&home).display(),
        )));
    }
    let target = system_path(&home);
    let found = target.join("data").exists();
    create_passable(Path::new(SYSTEM_DIRECTORY))?;
    create_passable(&target)?;
    // Another process may do the same at this moment. Only the final target of the link matters.
    let _ = fs::remove_dir(&home);
    let linked = symlink(&target, &home);
    if fs::canonicalize(&home).ok().as_deref() != Some(&target) {
        return Err(Error::Environment(format!(
            "the account {} cannot enter {home}, and it cannot be replaced with a link to {}{}: remove {home}, which \
             contains no data, and start again",
            account.name,
            target.display(),
            linked.err().map(|error| format!(" ({error})")).unwrap_or_default(),
            home = home.display(),
        )));
    }
    let account = Account::choose(&target.join("data"))?;
    if !account.can_enter(&target).await {
        return Err(Error::Environment(format!(
            "the account {} cannot enter {}: change its mode",
            account.name,
            target.display()
        )));
    }
    progress(&format!(
        "The account {} cannot enter {}, so it is a link to {} in {}",
        account.name,
        home.display(),
        if found { "PostgreSQL's existing data" } else { "PostgreSQL's new data" },
        target.display()
    ));
    Ok((target, account))
}

/// The folder for the socket: in `home`, or one with a short path if that path would exceed the kernel's limit.
pub(super) fn socket_directory(home: &Path, account: &Account) -> Result<PathBuf, Error> {
    let inside = home.join("run");
    if fits_socket_path(&inside) {
        return create_private(&inside, account);
    }
    let name = format!("millrace-{}", path_hash(home));
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| {
        // After `su` the variable may still name the folder of root or of another user.
        !account.switches_user && fs::metadata(folder).is_ok_and(|folder| folder.uid() == account.uid)
    });
    let short = runtime.map(|folder| folder.join(&name)).filter(|folder| fits_socket_path(folder));
    create_private(&short.unwrap_or_else(|| Path::new("/tmp").join(&name)), account)
}

fn fits_socket_path(folder: &Path) -> bool {
    folder.join(SOCKET_NAME).as_os_str().len() <= SOCKET_PATH_LIMIT
}

/// Creates a folder of mode 0700 for the account. In `/tmp` another user may have created it first: that is an error.
fn create_private(folder: &Path, account: &Account) -> Result<PathBuf, Error> {
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::file("cannot create the folder for the socket", folder)(error));
        }
        _ => {}
    }
    let found = fs::symlink_metadata(folder).map_err(Error::file("cannot inspect", folder))?;
    if !found.is_dir() || ![account.uid, nix::unistd::geteuid().as_raw()].contains(&found.uid()) {
        return Err(Error::Environment(format!(
            "{} belongs to another user: remove it and start again",
            folder.display()
        )));
    }
    account.make_private(folder)?;
    Ok(folder.to_path_buf())
}

/// Creates the folder and returns its real path. If it is a link and its target was removed, creates the target again.
fn create(directory: &Path) -> Result<PathBuf, Error> {
    if let Ok(target) = fs::read_link(directory)
        && !directory.exists()
    {
        let target = directory.parent().unwrap_or(Path::new("/")).join(target);
        fs::create_dir_all(target.parent().unwrap_or(Path::new("/"))).map_err(Error::file("cannot create", &target))?;
        create_passable(&target)?;
    }
    fs::create_dir_all(directory).map_err(Error::file("cannot create", directory))?;
    let home = fs::canonicalize(directory).map_err(Error::file("cannot find", directory))?;
    // PostgreSQL's settings and connection URLs are text.
    match home.to_str() {
        Some(_) => Ok(home),
        None => Err(Error::Environment(format!("the path {} is not UTF-8: choose another folder", home.display()))),
    }
}

/// Creates a folder that every account may pass through.
pub(super) fn create_passable(folder: &Path) -> Result<(), Error> {
    match fs::create_dir(folder) {
        Ok(()) => fs::set_permissions(folder, fs::Permissions::from_mode(PASSABLE_MODE)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
    .map_err(Error::file("cannot create", folder))
}

fn system_path(home: &Path) -> PathBuf {
    Path::new(SYSTEM_DIRECTORY).join(path_hash(home))
}

/// A path's hash as 16 hexadecimal digits. It must not change between versions, since it is part of the data's path.
fn path_hash(path: &Path) -> String {
    let hash = Sha256::digest(path.as_os_str().as_encoded_bytes());
    hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
