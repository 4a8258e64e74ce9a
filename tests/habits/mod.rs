//! What contributors type, and what git does for them: the hooks and the scripts, run as they are.

mod commit_message;
mod migration;
mod pre_commit;
mod recipes;

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository")
}
