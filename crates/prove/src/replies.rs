//! PostgreSQL's replies, cut into batches that may be forwarded, with the mark of a commit.
//!
//! Source of the format: PostgreSQL's documentation, "Message Formats". Each message is a byte for its type and four bytes
//! for its length, which counts itself. A write outside a transaction commits before `ReadyForQuery` reports "idle".

/// The bytes of the type and the length.
const HEADER: usize = 5;
const COMMAND_COMPLETE: u8 = b'C';
const READY_FOR_QUERY: u8 = b'Z';
/// The first words of the tags of commands that may commit.
const WRITES: [&[u8]; 4] = [b"COMMIT", b"INSERT", b"UPDATE", b"DELETE"];

/// The messages of one server session. There must be no TLS.
#[derive(Default)]
pub(crate) struct Replies {
    buffer: Vec<u8>,
    /// Messages from the first completed write on, which wait for `ReadyForQuery`.
    held: Vec<u8>,
}

/// Messages that belong together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub bytes: Vec<u8>,
    /// Whether it is the reply to a commit.
    pub is_commit: bool,
}

impl Replies {
    /// Adds bytes as they arrived.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next batch; `None` until more bytes arrive.
    pub(crate) fn next(&mut self) -> Option<Batch> {
        loop {
            let message = self.next_message()?;
            let kind = message.first().copied();
            let body = message.get(HEADER..).unwrap_or_default();
            let is_write = kind == Some(COMMAND_COMPLETE) && WRITES.iter().any(|word| body.starts_with(word));
            if self.held.is_empty() && !is_write {
                return Some(Batch { bytes: message, is_commit: false });
            }
            let (is_end, is_idle) = (kind == Some(READY_FOR_QUERY), body == b"I");
            self.held.extend(message);
            if is_end {
                return Some(Batch { bytes: std::mem::take(&mut self.held), is_commit: is_idle });
            }
        }
    }

    fn next_message(&mut self) -> Option<Vec<u8>> {
        let length: [u8; 4] = self.buffer.get(1..HEADER)?.try_into().ok()?;
        let end = 1 + usize::try_from(u32::from_be_bytes(length)).ok()?;
        if self.buffer.len() < end {
            return None;
        }
        let rest = self.buffer.split_off(end);
        Some(std::mem::replace(&mut self.buffer, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("a length").to_be_bytes();
        [&[kind][..], &length, body].concat()
    }

    fn batches(bytes: &[u8], step: usize) -> Vec<Batch> {
        let (mut replies, mut found) = (Replies::default(), Vec::new());
        for part in bytes.chunks(step) {
            replies.push(part);
            found.extend(std::iter::from_fn(|| replies.next()));
        }
        found
    }

    #[test]
    fn commits_are_marked_wherever_the_stream_is_cut() {
        let row = message(b'D', &[0; 300]);
        let (update, ready) = (message(b'C', b"UPDATE 5\0"), message(b'Z', b"I"));
        let (commit, in_transaction) = (message(b'C', b"COMMIT\0"), message(b'Z', b"T"));
        let select = message(b'C', b"SELECT 1\0");
        let stream = [&row[..], &update, &ready, &select, &ready, &update, &in_transaction, &commit, &ready].concat();
        for step in [1, 2, 7, 64, stream.len()] {
            let found = batches(&stream, step);
            let marks: Vec<bool> = found.iter().map(|batch| batch.is_commit).collect();
            assert_eq!(marks, [false, true, false, false, false, true], "in steps of {step}");
            let forwarded: Vec<u8> = found.into_iter().flat_map(|batch| batch.bytes).collect();
            assert_eq!(forwarded, stream, "in steps of {step}");
        }
    }

    #[test]
    fn what_waits_for_the_end_of_its_statement_is_not_forwarded() {
        assert_eq!(batches(&message(b'C', b"INSERT 0 1\0"), 4), []);
        assert_eq!(batches(&[b'Z', 0, 0], 1), []);
    }
}
