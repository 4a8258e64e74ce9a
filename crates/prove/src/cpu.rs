//! CPU time of processes, from `/proc`.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, bail};

/// The unit of the times in `/proc/PID/stat`.
const TICK: Duration = Duration::from_millis(10);

/// The CPU time that all threads of a process have used so far.
///
/// # Errors
/// When `/proc/PID/stat` cannot be read.
pub(crate) fn of_process(pid: u32) -> Result<Duration> {
    times(pid).map(|[own, _]| own)
}

/// The CPU time that a server has used so far, with all processes that it has started: the first of these processes is
/// the server itself.
///
/// # Errors
/// When the server has ended.
pub fn of_server(processes: &[u32]) -> Result<Duration> {
    let (server, started) = processes.split_first().context("a server")?;
    // The time of a process that ends now is missing until the server has noticed its end.
    let running: Duration = started.iter().filter_map(|pid| times(*pid).ok()).map(|[own, _]| own).sum();
    let [own, ended] = times(*server)?;
    Ok(own + ended + running)
}

/// The time of a process, and that of its children that have ended.
fn times(pid: u32) -> Result<[Duration; 2]> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // Fields 14 to 17 of proc(5): user and system time, and those of the children. The name in field 2 may contain blanks,
    // and ends at the last bracket.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace()).into_iter().flatten();
    let ticks: Vec<u64> = fields.skip(11).take(4).filter_map(|ticks| ticks.parse().ok()).collect();
    let time = |ticks: u64| TICK * u32::try_from(ticks).unwrap_or(u32::MAX);
    match ticks[..] {
        [user, system, children_user, children_system] => {
            Ok([time(user + system), time(children_user + children_system)])
        }
        _ => bail!("cannot parse {path}"),
    }
}
