//! Limit of open files. Each connection is an open file, and the usual soft limit of 1,024 is too low for a server.

use nix::{
    errno::Errno,
    sys::resource::{Resource, getrlimit, setrlimit},
};

/// Raises the soft limit to the hard limit, which every process may do. Logs and returns the new limit.
pub fn raise_limit() -> u64 {
    match raise_to_hard_limit() {
        Ok((before, now)) => {
            tracing::info!(before, now, "limit of open files");
            now
        }
        Err(error) => {
            let now = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
            tracing::warn!(%error, now, "cannot raise the limit of open files");
            now
        }
    }
}

/// Raises the soft limit to the hard limit. Returns the soft limit before, and the hard limit.
fn raise_to_hard_limit() -> Result<(u64, u64), Errno> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok((soft, hard))
}
