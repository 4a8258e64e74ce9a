//! A limit on the size of the files that another process writes. PostgreSQL treats a file that cannot grow like a full disk.

use std::{
    fs,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use nix::unistd::geteuid;

/// The program that sets the limit, of the package util-linux.
pub(crate) const PROGRAM: &str = "prlimit";

/// Sets the limit of a process. Processes that it starts later inherit it. Returns whether the limit is set: not if the
/// process has ended.
///
/// # Errors
/// When the program cannot be run.
pub(crate) fn set(process: u32, bytes: u64) -> Result<bool> {
    let Ok(owner) = fs::metadata(format!("/proc/{process}")) else { return Ok(false) };
    let mut command = Command::new(PROGRAM);
    command.args(["--pid", &process.to_string(), &format!("--fsize={bytes}")]);
    if geteuid().is_root() {
        // Root of a container may lack the privilege to change the limits of other users' processes.
        command.uid(owner.uid()).gid(owner.gid());
    }
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(quiet.status().with_context(|| format!("cannot run {PROGRAM}"))?.success())
}
