//! The limit of open files: every connection is one, and the usual soft limit of 1,024 is for programs of another time.

use nix::{
    errno::Errno,
    sys::resource::{Resource, getrlimit, setrlimit},
};

/// Raises the soft limit to the hard one, which every process may, logs the limit that then holds, and returns it.
pub fn raise() -> u64 {
    match to_the_hard_one() {
        Ok((before, now)) => {
            tracing::info!(before, now, "limit of open files");
            now
        }
        Err(error) => {
            let now = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
            tracing::warn!(%error, now, "the limit of open files cannot be raised");
            now
        }
    }
}

fn to_the_hard_one() -> Result<(u64, u64), Errno> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok((soft, hard))
}
