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

/// What is wrong, by name. Features add kinds of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ProblemKind(&'static str);

impl ProblemKind {
    /// The claims of a worker fail.
    pub const CANNOT_CLAIM: Self = Self::new("cannot_claim");
    /// A queue has due jobs and no live worker.
    pub const NO_WORKER: Self = Self::new("no_worker");
    /// A queue is paused.
    pub const PAUSED: Self = Self::new("paused");
    /// Jobs of a queue have died of the same error in the last 15 minutes.
    pub const DYING: Self = Self::new("dying");
    /// A queue gets more jobs than its workers start.
    pub const BEHIND: Self = Self::new("behind");
    /// A worker without a valid lease holds jobs.
    pub const SILENT_WORKER: Self = Self::new("silent_worker");

    /// A kind with this name, in snake case.
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }
}

impl Problem {
    /// A problem of a feature, which concerns no queue or worker alone. `link` is the path of the page that says more, and
    /// `command` the command.
    pub fn of_feature(kind: ProblemKind, text: String, link: &str, command: &str) -> Self {
        let (link, command) = (link.to_owned(), command.to_owned());
        Self { kind, text, queue: None, worker: None, group: None, link, command }
    }

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
            kind: ProblemKind::DYING,
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
        let problem = Problem::of_worker(ProblemKind::SILENT_WORKER, "w-1\u{1b}", None, String::new());
        assert_eq!((&*problem.link, &*problem.command), ("/board/workers/w-1%1B", "millrace workers show 'w-1 '"));
    }
}
