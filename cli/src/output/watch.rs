//! `--watch`: prints a view again and again.

use std::{fmt::Write as _, time::Duration};

use anyhow::Result;

use super::{Screen, one_line, report, write};

/// The pause between two views.
const EVERY: Duration = Duration::from_secs(2);

/// Prints a view every two seconds, until Ctrl-C or until the reader of the output is gone. On a terminal each view
/// replaces the last one. An error is printed in the place of its view, and the next view is tried.
///
/// # Errors
/// When the output cannot be written.
pub(crate) async fn watch(view: impl AsyncFn(Screen) -> Result<String>) -> Result<()> {
    // Handled here, because a process in the background of a script starts with this signal ignored.
    tokio::select! {
        result = repeat(view) => result,
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}

async fn repeat(view: impl AsyncFn(Screen) -> Result<String>) -> Result<()> {
    loop {
        let screen = Screen::of_stdout();
        let text = match view(screen).await {
            Ok(text) => text,
            Err(error) => format!("not known now: {}\n", one_line(&format!("{error:#}"), 300)),
        };
        let text = screen.size.map_or_else(|| text.clone(), |(_, lines)| in_place(&text, lines));
        let written = write(text.as_bytes());
        if written.is_err() {
            return report(written);
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Overwrites the screen from its first line, without clearing it before, so that it does not flicker.
fn in_place(text: &str, height: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let room = height.saturating_sub(1).max(1);
    let mut screen = String::from("\u{1b}[H");
    let shown = if lines.len() > room { room.saturating_sub(1) } else { lines.len() };
    for line in &lines[..shown] {
        // Writing to a String never fails.
        let _ = writeln!(screen, "{line}\u{1b}[K");
    }
    if shown < lines.len() {
        let _ = writeln!(screen, "… {} more lines\u{1b}[K", lines.len() - shown);
    }
    screen.push_str("\u{1b}[J");
    screen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_cut_to_the_height_of_the_terminal() {
        assert_eq!(in_place("a\nb\n", 4), "\u{1b}[Ha\u{1b}[K\nb\u{1b}[K\n\u{1b}[J");
        assert_eq!(in_place("a\nb\nc\nd\n", 4), "\u{1b}[Ha\u{1b}[K\nb\u{1b}[K\n… 2 more lines\u{1b}[K\n\u{1b}[J");
    }
}
