//! Creates the data directory with initdb. An interrupted run leaves nothing that looks like a data directory.

use super::{account::Account, error::Error, locate::Binaries, server::SUPERUSER, tool};
use std::{fs, os::unix::fs::DirBuilderExt, path::Path, time::Duration};

/// initdb takes 0.5 s on our test machine without syncing its writes; a throttled disk takes several seconds.
const INITDB_TIMEOUT: Duration = Duration::from_secs(180);

/// The name of an incomplete data directory begins with this; the id of the process that creates it follows.
const PARTIAL_PREFIX: &str = "data.new-";

/// The major version of the existing data, if any.
pub(super) fn data_version(data: &Path) -> Result<Option<u32>, Error> {
    match fs::read_to_string(data.join("PG_VERSION")) {
        Ok(text) => text.trim().parse().map(Some).map_err(|_| not_a_data_directory(data)),
        // A mount may have created an empty folder. All else belongs to others and stays unchanged.
        Err(_) if !data.exists() || fs::remove_dir(data).is_ok() => Ok(None),
        Err(_) => Err(not_a_data_directory(data)),
    }
}

fn not_a_data_directory(data: &Path) -> Error {
    Error::Environment(format!(
        "{} is not a data directory of PostgreSQL: move it away and start again",
        data.display()
    ))
}

/// Creates `home/data` atomically: it is complete, or it does not exist.
pub(super) async fn create_data_directory(
    home: &Path,
    binaries: &Binaries,
    account: &Account,
    durable: bool,
) -> Result<(), Error> {
    for entry in fs::read_dir(home).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PARTIAL_PREFIX) {
            // Its initdb may still run after our process was killed. That is harmless, since the name is not reused.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let (new, data) = (home.join(format!("{PARTIAL_PREFIX}{}", std::process::id())), home.join("data"));
    let first = initdb(&new, "C.UTF-8", binaries, account, durable).await;
    match first {
        // Some systems lack that locale. `C` sorts the same way, by code point.
        Err(Error::Tool { reason, .. }) if reason.contains("locale") => {
            initdb(&new, "C", binaries, account, durable).await?;
        }
        other => other?,
    }
    fs::rename(&new, &data).map_err(Error::file("cannot create", &data))?;
    if durable {
        let home_itself = fs::File::open(home).and_then(|home| home.sync_all());
        home_itself.map_err(Error::file("cannot sync", home))?;
    }
    Ok(())
}

async fn initdb(new: &Path, locale: &str, binaries: &Binaries, account: &Account, durable: bool) -> Result<(), Error> {
    let _ = fs::remove_dir_all(new);
    fs::DirBuilder::new().mode(0o700).create(new).map_err(Error::file("cannot create", new))?;
    account.make_private(new)?;
    let mut command = account.command(binaries.bin.join("initdb"));
    command.arg("-D").arg(new).args(["--encoding=UTF8", "--auth-local=trust", "--auth-host=reject"]);
    command.arg(format!("--locale={locale}")).arg(format!("--username={SUPERUSER}"));
    command.args((!durable).then_some("--no-sync"));
    tool::run(&mut command, INITDB_TIMEOUT).await.map(drop)
}
