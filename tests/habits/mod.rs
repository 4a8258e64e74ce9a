//! Tools for contributors: the git hooks, the justfile and the scripts.

mod commit_message;
mod migration;
mod pre_commit;
mod recipes;
mod release;

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository")
}
