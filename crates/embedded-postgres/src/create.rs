//! initdb, such that one that was interrupted leaves nothing that looks like a data directory.

use super::{account::Account, error::Error, locate::Binaries, tool};
use std::{fs, os::unix::fs::DirBuilderExt, path::Path, time::Duration};

/// The database superuser; local connections are trusted, since only we reach the socket.
pub(super) const USER: &str = "millrace";

/// 0.5 s on this machine, without its writes being waited for; a throttled disk takes several seconds.
const LIMIT: Duration = Duration::from_secs(180);

/// The name of a data directory in the making; the rest of it is the process that makes it.
const MAKING: &str = "data.new-";

/// The major version of the data that are there already.
pub(super) fn version(data: &Path) -> Result<Option<u32>, Error> {
    match fs::read_to_string(data.join("PG_VERSION")) {
        Ok(text) => text.trim().parse().map(Some).map_err(|_| strange(data)),
        // Empty ones may have been made by a mount; anything else is not ours to touch.
        Err(_) if !data.exists() || fs::remove_dir(data).is_ok() => Ok(None),
        Err(_) => Err(strange(data)),
    }
}

fn strange(data: &Path) -> Error {
    Error::Place(format!("{} is not a data directory of PostgreSQL: move it away and start again", data.display()))
}

/// Makes `home/data`: complete, or not at all.
pub(super) async fn create(home: &Path, binaries: &Binaries, account: &Account, durable: bool) -> Result<(), Error> {
    for entry in fs::read_dir(home).into_iter().flatten().filter_map(|entry| entry.ok()) {
        if entry.file_name().to_string_lossy().starts_with(MAKING) {
            // Its initdb may still run after our own sudden death; its name is never used again, so it is harmless.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let (new, data) = (home.join(format!("{MAKING}{}", std::process::id())), home.join("data"));
    let first = initdb(&new, "C.UTF-8", binaries, account, durable).await;
    match first {
        // Not every system has that locale. The plain one sorts the same way, by code point.
        Err(Error::Tool { reason, .. }) if reason.contains("locale") => {
            initdb(&new, "C", binaries, account, durable).await?;
        }
        other => other?,
    }
    fs::rename(&new, &data).map_err(Error::file("cannot make", &data))?;
    if durable {
        let home_itself = fs::File::open(home).and_then(|home| home.sync_all());
        home_itself.map_err(Error::file("cannot sync", home))?;
    }
    Ok(())
}

async fn initdb(new: &Path, locale: &str, binaries: &Binaries, account: &Account, durable: bool) -> Result<(), Error> {
    let _ = fs::remove_dir_all(new);
    fs::DirBuilder::new().mode(0o700).create(new).map_err(Error::file("cannot make", new))?;
    account.give(new)?;
    let mut command = account.command(binaries.bin.join("initdb"));
    command.arg("-D").arg(new).args(["--encoding=UTF8", &format!("--locale={locale}"), &format!("--username={USER}")]);
    command.args(["--auth-local=trust", "--auth-host=reject"]);
    if !durable {
        command.arg("--no-sync");
    }
    tool::run(command, LIMIT).await.map(drop)
}
