//! The data directory of the all-in-one process, which keeps its database and logs between runs.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

/// The directory's name.
const NAME: &str = ".millrace";
/// The folder of this crate at build time. `cargo run` sets an environment variable of this name to the same path.
const CRATE: &str = env!("CARGO_MANIFEST_DIR");

/// `.millrace` in the working folder. Under `cargo run` it is always the one at the workspace root; otherwise a first
/// run in a subfolder would create a second database there.
pub(crate) fn data_dir() -> PathBuf {
    let working_dir = std::env::current_dir().unwrap_or_default();
    data_dir_for(std::env::var_os("CARGO_MANIFEST_DIR").as_deref(), &working_dir)
}

fn data_dir_for(run_by_cargo: Option<&OsStr>, working_dir: &Path) -> PathBuf {
    let workspace = Path::new(CRATE).parent().filter(|_| run_by_cargo == Some(OsStr::new(CRATE)));
    match workspace {
        Some(workspace) if working_dir != workspace && working_dir.starts_with(workspace) => workspace.join(NAME),
        _ => PathBuf::from(NAME),
    }
}

/// Creates the directory, and checks that files can be written there.
///
/// # Errors
/// When the directory cannot be created or is not writable.
pub(crate) fn create_writable(data_dir: &Path) -> io::Result<()> {
    fs::create_dir_all(data_dir)?;
    let attempt = data_dir.join(format!(".attempt-{}", std::process::id()));
    fs::write(&attempt, "")?;
    fs::remove_file(attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_run_uses_one_directory_in_the_whole_workspace() {
        let workspace = Path::new(CRATE).parent().expect("a workspace");
        let cargo = Some(OsStr::new(CRATE));
        for folder in [&*workspace.join("api"), &*workspace.join("api/src"), Path::new(CRATE)] {
            assert_eq!(data_dir_for(cargo, folder), workspace.join(NAME), "{}", folder.display());
        }
        for (run_by_cargo, folder) in [
            (cargo, workspace),
            (cargo, Path::new("/")),
            (cargo, workspace.parent().expect("a parent")),
            // A program of another workspace starts Millrace there, or an operator starts the binary by hand.
            (Some(OsStr::new("/another/cli")), &*workspace.join("api")),
            (None, &*workspace.join("api")),
        ] {
            let found = data_dir_for(run_by_cargo, folder);
            assert_eq!(found, Path::new(NAME), "{run_by_cargo:?} in {}", folder.display());
        }
    }
}
