//! The system account that runs the server. PostgreSQL refuses root, so a root process uses an account with fewer rights.

use super::{error::Error, tool};
use nix::unistd::{Uid, User, geteuid};
use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown},
    path::Path,
    time::Duration,
};
use tokio::process::Command;

/// The accounts that a root process tries, in this order. Debian's package creates `postgres`; every system has `nobody`.
const PREFERRED_ACCOUNTS: [&str; 2] = ["postgres", "nobody"];

/// Normally a shell's `cd` takes 1 ms; this limit also suffices on an overloaded machine.
const ACCESS_CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// The account that owns the data and runs the server.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// Whether we are root and must start programs under this account.
    pub switches_user: bool,
}

impl Account {
    /// Chooses our own account, unless we are root: then the owner of existing data, else one of [`PREFERRED_ACCOUNTS`].
    ///
    /// # Errors
    /// When the data belong to another account, or when we are root and no account for the server exists.
    pub(crate) fn choose(data: &Path) -> Result<Self, Error> {
        let owner = fs::metadata(data).ok().map(|data| data.uid());
        let ours = geteuid();
        if !ours.is_root() {
            let own = Self::from_uid(ours).unwrap_or_else(|| Self {
                name: format!("uid {ours}"),
                uid: ours.as_raw(),
                gid: nix::unistd::getegid().as_raw(),
                switches_user: false,
            });
            return match owner.filter(|owner| *owner != own.uid) {
                None => Ok(own),
                Some(other) => Err(Error::Environment(format!(
                    "the data in {} belongs to {}, and you are {}: run as that account, or move the folder away to \
                     start with an empty database",
                    data.display(),
                    Self::from_uid(Uid::from_raw(other)).map_or(format!("uid {other}"), |other| other.name),
                    own.name
                ))),
            };
        }
        // initdb refuses a user id without an entry in passwd, so such an owner is ignored.
        let owner = owner.map(Uid::from_raw).filter(|owner| !owner.is_root()).and_then(Self::from_uid);
        let preferred =
            || PREFERRED_ACCOUNTS.iter().find_map(|name| User::from_name(name).ok().flatten()).map(Self::from);
        let account = owner.or_else(preferred).ok_or_else(|| {
            Error::Environment(
                "PostgreSQL refuses to run as root, and there is no account named postgres or nobody to run it: \
                 create one (useradd --system postgres), run as an ordinary user, or set DATABASE_URL"
                    .into(),
            )
        })?;
        Ok(Self { switches_user: true, ..account })
    }

    fn from_uid(uid: Uid) -> Option<Self> {
        User::from_uid(uid).ok().flatten().map(Self::from)
    }

    /// Returns a command that runs under this account with a clean environment: `PGDATA` or `PGOPTIONS` in the user's
    /// shell refer to other servers. Its working directory is `/`, which every account can enter.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().current_dir("/").env("HOME", "/").env("PWD", "/").env("LC_ALL", "C");
        for inherited in ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"] {
            if let Some(value) = std::env::var_os(inherited) {
                command.env(inherited, value);
            }
        }
        if self.switches_user {
            // std also drops the supplementary groups when root sets another uid.
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Whether this account can enter a folder. It is tried with a shell, since mode bits do not show access lists.
    pub(crate) async fn can_enter(&self, folder: &Path) -> bool {
        let mut command = self.command("sh");
        tool::run(command.args(["-c", r#"cd "$1""#, "sh"]).arg(folder), ACCESS_CHECK_TIMEOUT).await.is_ok()
    }

    /// Gives a folder to this account and denies access to all others.
    pub(crate) fn make_private(&self, folder: &Path) -> Result<(), Error> {
        if self.switches_user {
            chown(folder, Some(self.uid), Some(self.gid)).map_err(Error::file("cannot change the owner of", folder))?;
        }
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(Error::file("cannot protect", folder))
    }

    /// Gives a folder with its contents to this account, if another one owns it, for example after a copy made by root.
    pub(crate) fn own_tree(&self, folder: &Path) -> Result<(), Error> {
        let owner = fs::symlink_metadata(folder).map_err(Error::file("cannot inspect", folder))?.uid();
        if !self.switches_user || owner == self.uid {
            return Ok(());
        }
        self.chown_recursively(folder).map_err(Error::file("cannot change the owner of the contents of", folder))
    }

    fn chown_recursively(&self, path: &Path) -> std::io::Result<()> {
        if fs::symlink_metadata(path)?.is_dir() {
            for entry in fs::read_dir(path)? {
                self.chown_recursively(&entry?.path())?;
            }
        }
        lchown(path, Some(self.uid), Some(self.gid))
    }
}

impl From<User> for Account {
    fn from(user: User) -> Self {
        Self { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw(), switches_user: false }
    }
}
