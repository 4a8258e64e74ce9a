//! The folder in which the all-in-one keeps its database and its logs between runs.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

/// What the folder is called.
const NAME: &str = ".millrace";
/// Where this crate was built; `cargo run` sets a variable of this name to the same path.
const CRATE: &str = env!("CARGO_MANIFEST_DIR");

/// `.millrace` in the working folder. Under `cargo run` it is the workspace's one, whichever of its folders that was
/// typed in: a first run in a subfolder would make a second database there.
pub fn home() -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    home_of(std::env::var_os("CARGO_MANIFEST_DIR").as_deref(), &here)
}

fn home_of(run_by_cargo: Option<&OsStr>, here: &Path) -> PathBuf {
    let workspace = Path::new(CRATE).parent().filter(|_| run_by_cargo == Some(OsStr::new(CRATE)));
    match workspace {
        Some(workspace) if here != workspace && here.starts_with(workspace) => workspace.join(NAME),
        _ => PathBuf::from(NAME),
    }
}

/// Makes the folder, and makes sure that files can be written there.
///
/// # Errors
/// Why they cannot.
pub fn prepare(home: &Path) -> io::Result<()> {
    fs::create_dir_all(home)?;
    let attempt = home.join(format!(".attempt-{}", std::process::id()));
    fs::write(&attempt, "")?;
    fs::remove_file(attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_run_has_one_folder_in_the_whole_workspace() {
        let workspace = Path::new(CRATE).parent().expect("a workspace");
        let cargo = Some(OsStr::new(CRATE));
        for here in [&*workspace.join("api"), &*workspace.join("api/src"), Path::new(CRATE)] {
            assert_eq!(home_of(cargo, here), workspace.join(NAME), "{}", here.display());
        }
        for (by, here) in [
            (cargo, workspace),
            (cargo, Path::new("/")),
            (cargo, workspace.parent().expect("a parent")),
            // A program of another workspace starts us there, or ours is started by hand.
            (Some(OsStr::new("/another/cli")), &*workspace.join("api")),
            (None, &*workspace.join("api")),
        ] {
            assert_eq!(home_of(by, here), Path::new(NAME), "{by:?} in {}", here.display());
        }
    }
}
