//! Who runs the server: PostgreSQL refuses root, so a root process hands it to an account with fewer rights.

use super::{error::Error, tool};
use nix::unistd::{Uid, User, geteuid};
use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown, lchown},
        process::CommandExt,
    },
    path::Path,
    process::Command,
    time::Duration,
};

/// A root process prefers the account that Debian's package makes for this purpose; `nobody` is on every system.
const PREFERRED: [&str; 2] = ["postgres", "nobody"];

/// A shell's `cd` takes a millisecond; ten seconds is a machine that does nothing else.
const REACH_LIMIT: Duration = Duration::from_secs(10);

/// The account that owns the data and runs the server.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// We are root and this is not: programs must be started as somebody else.
    pub dropped: bool,
}

impl Account {
    /// Ourselves, unless we are root: then the owner of the data if there is any already, else one of [`PREFERRED`].
    ///
    /// # Errors
    /// The data belongs to somebody else, or root finds no account to hand the server to.
    pub fn choose(data: &Path) -> Result<Self, Error> {
        let owner = fs::metadata(data).ok().map(|data| data.uid());
        let ours = geteuid();
        if !ours.is_root() {
            let own = Self::of(ours).unwrap_or_else(|| Self {
                name: format!("uid {ours}"),
                uid: ours.as_raw(),
                gid: nix::unistd::getegid().as_raw(),
                dropped: false,
            });
            return match owner.filter(|owner| *owner != own.uid) {
                None => Ok(own),
                Some(other) => Err(Error::Place(format!(
                    "the data in {} belongs to {}, and you are {}: run as that account, or move the folder away to \
                     begin with an empty database",
                    data.display(),
                    Self::of(Uid::from_raw(other)).map_or(format!("uid {other}"), |other| other.name),
                    own.name
                ))),
            };
        }
        // initdb refuses an id without an entry in passwd, so an owner who has none does not count.
        let owner = owner.map(Uid::from_raw).filter(|owner| !owner.is_root()).and_then(Self::of);
        let preferred = || PREFERRED.iter().find_map(|name| User::from_name(name).ok().flatten()).map(Self::from);
        let account = owner.or_else(preferred).ok_or_else(|| {
            Error::Place(
                "PostgreSQL refuses to run as root, and there is no account named postgres or nobody to run it: \
                 make one (useradd --system postgres), run as an ordinary user, or set DATABASE_URL"
                    .into(),
            )
        })?;
        Ok(Self { dropped: true, ..account })
    }

    fn of(uid: Uid) -> Option<Self> {
        User::from_uid(uid).ok().flatten().map(Self::from)
    }

    /// A program to be run as this account, with a clean environment: a stray `PGDATA` or `PGOPTIONS` of the user's
    /// shell means other servers. The working directory is one that every account reaches.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().current_dir("/").env("HOME", "/").env("PWD", "/").env("LC_ALL", "C");
        for kept in ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        if self.dropped {
            // std gives up the supplementary groups too when root asks for another uid.
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Whether this account can enter a folder. Asked by trying: mode bits alone do not tell about access lists.
    pub async fn reaches(&self, folder: &Path) -> bool {
        let mut command = self.command("sh");
        command.args(["-c", r#"cd "$1""#, "sh"]).arg(folder);
        tool::run(command, REACH_LIMIT).await.is_ok()
    }

    /// Makes a folder this account's alone.
    pub fn give(&self, folder: &Path) -> Result<(), Error> {
        if self.dropped {
            chown(folder, Some(self.uid), Some(self.gid)).map_err(Error::file("cannot change the owner of", folder))?;
        }
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(Error::file("cannot protect", folder))
    }

    /// Gives a folder and all in it, when it is not this account's yet: after a copy made by root, say.
    pub fn give_all(&self, folder: &Path) -> Result<(), Error> {
        let owner = fs::symlink_metadata(folder).map_err(Error::file("cannot look at", folder))?.uid();
        if !self.dropped || owner == self.uid {
            return Ok(());
        }
        self.give_below(folder).map_err(Error::file("cannot change the owner of all in", folder))
    }

    fn give_below(&self, path: &Path) -> std::io::Result<()> {
        if fs::symlink_metadata(path)?.is_dir() {
            for entry in fs::read_dir(path)? {
                self.give_below(&entry?.path())?;
            }
        }
        lchown(path, Some(self.uid), Some(self.gid))
    }
}

impl From<User> for Account {
    fn from(user: User) -> Self {
        Self { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw(), dropped: false }
    }
}
