//! One thing that is wrong, with the page and the command that say more.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub kind: ProblemKind,
    /// A sentence.
    pub text: String,
    /// The queue that it concerns.
    pub queue: Option<String>,
    /// The worker that it concerns.
    pub worker: Option<String>,
    /// The group of errors of the dead letters; empty for those without a group.
    pub group: Option<String>,
    /// The path of the page that says more.
    pub link: String,
    /// The command that says more.
    pub command: String,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// The claims of a worker fail.
    CannotClaim,
    /// A queue has due jobs and no live worker.
    NoWorker,
    /// A queue is paused.
    Paused,
    /// Jobs of a queue have died of the same error in the last 15 minutes.
    Dying,
    /// A queue gets more jobs than its workers start.
    Behind,
    /// A worker without a valid lease holds jobs.
    SilentWorker,
}

impl Problem {
    /// A problem of a queue.
    pub(super) fn of_queue(kind: ProblemKind, queue: &str, text: String) -> Self {
        Self {
            kind,
            text,
            queue: Some(queue.to_owned()),
            worker: None,
            group: None,
            link: format!("/board/queues/{}", encoded(queue)),
            command: format!("millrace queues show {}", quoted(queue)),
        }
    }

    /// A problem of a worker, with one of its queues or all.
    pub(super) fn of_worker(kind: ProblemKind, worker: &str, queue: Option<&str>, text: String) -> Self {
        Self {
            kind,
            text,
            queue: queue.map(str::to_owned),
            worker: Some(worker.to_owned()),
            group: None,
            link: format!("/board/workers/{}", encoded(worker)),
            command: format!("millrace workers show {}", quoted(worker)),
        }
    }

    /// Dead letters of a queue with the same error.
    pub(super) fn of_group(queue: &str, group: &str, text: String) -> Self {
        Self {
            kind: ProblemKind::Dying,
            text,
            queue: Some(queue.to_owned()),
            worker: None,
            group: Some(group.to_owned()),
            link: format!("/board/dead/selection?queue={}&group={}", encoded(queue), encoded(group)),
            command: format!("millrace dead replay --queue {} --group {} --dry-run", quoted(queue), quoted(group)),
        }
    }
}

/// Characters that need no encoding in a path or a query.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// A word of a shell command. Characters that control a terminal become blanks.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    let clean: String = word.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("'{}'", clean.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_commands_are_quoted() {
        let problem = Problem::of_group("it's a/b", "", String::new());
        assert_eq!(problem.link, "/board/dead/selection?queue=it%27s%20a%2Fb&group=");
        assert_eq!(problem.command, r"millrace dead replay --queue 'it'\''s a/b' --group '' --dry-run");
        let problem = Problem::of_worker(ProblemKind::SilentWorker, "w-1\u{1b}", None, String::new());
        assert_eq!((&*problem.link, &*problem.command), ("/board/workers/w-1%1B", "millrace workers show 'w-1 '"));
    }
}
