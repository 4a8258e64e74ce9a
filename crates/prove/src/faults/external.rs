//! A fault from outside: a command of the user that harms the database, such as a switch-over of its cluster.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use crate::scene::Scene;

/// Webhooks that must be acknowledged after the command has ended.
const AFTERWARDS: usize = 20;

/// Runs the command under load. The harm is done when its first line of output arrives, or when it ends; the recovery is
/// measured from there. Then it may repair what it has harmed, so that the load meets the repair as well.
pub(super) async fn run_command(scene: &mut Scene<'_>) -> Result<()> {
    let command = scene.options.during.as_deref().context("no command")?;
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = shell.spawn().context("cannot start sh")?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let first = lines.next_line().await?;
    scene.note(format!("harmed: {}", first.unwrap_or_default()));
    let recovery = scene.recover().await?;
    // The command would wait for a reader.
    while let Some(line) = lines.next_line().await? {
        scene.note(line);
    }
    let status = child.wait().await?;
    if !status.success() {
        bail!("the command ended with {status}");
    }
    scene.recovery = Some(recovery);
    scene.run_until_acknowledged(AFTERWARDS).await
}
