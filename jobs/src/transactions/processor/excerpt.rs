//! Excerpts of response bodies for the operator: the first bytes of the body, without the secrets of the URL.

use std::{borrow::Cow, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use percent_encoding::percent_decode_str;
use reqwest::Response;
use url::{Url, form_urlencoded};

/// The length of an excerpt in bytes.
const EXCERPT_BYTES: usize = 500;
/// The number of bytes read. It is larger, so that a secret which begins within the excerpt is recognised as a whole.
const READ_BYTES: usize = 20_000;
/// The time limit for reading a body.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// Shorter query values, such as `v=1`, do not count as secrets: redacting them would hide half of a text.
const MIN_SECRET: usize = 4;
/// A path segment of at least this length may be a token.
const MIN_TOKEN: usize = 16;

/// Secrets that must not appear in logs and errors.
#[derive(Default)]
pub(in crate::transactions) struct Secrets(Vec<String>);

impl Secrets {
    /// The secrets of a URL: its password, the values of its query, and path segments as long as a token.
    /// The password is included as written, decoded, and encoded as in the header `Authorization`.
    pub(in crate::transactions) fn of(url: &Url) -> Self {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let mut secrets = Vec::new();
        if let Some(password) = url.password() {
            let (user, plain) = (decoded(url.username()), decoded(password));
            secrets.extend([STANDARD.encode(format!("{user}:{plain}")), password.to_owned(), plain]);
        } else if !url.username().is_empty() {
            // Without a password the user name may be an API key.
            secrets.extend([STANDARD.encode(format!("{}:", decoded(url.username()))), url.username().to_owned()]);
        }
        let written =
            url.query().unwrap_or_default().split('&').map(|pair| pair.split_once('=').map_or(pair, |(_, v)| v));
        secrets.extend(written.filter(|value| value.len() >= MIN_SECRET).map(str::to_owned));
        let read = form_urlencoded::parse(url.query().unwrap_or_default().as_bytes());
        secrets.extend(read.map(|(_, value)| value.into_owned()).filter(|value| value.len() >= MIN_SECRET));
        for part in url.path_segments().into_iter().flatten().filter(|part| part.len() >= MIN_TOKEN) {
            secrets.extend([part.to_owned(), decoded(part)]);
        }
        secrets.retain(|secret| !secret.is_empty());
        // Longest first, because one secret may be a part of another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(secrets)
    }

    /// Replaces the secrets in a text with `***`.
    pub(in crate::transactions) fn redact(&self, text: &str) -> String {
        self.redact_until(text, text.len())
    }

    /// The first `end` bytes of a text, with the secrets that begin there replaced.
    fn redact_until(&self, text: &str, end: usize) -> String {
        let mut redacted = String::with_capacity(end.min(text.len()));
        let mut rest = text;
        while let Some(next) = rest.chars().next()
            && text.len() - rest.len() + next.len_utf8() <= end
        {
            let step = match self.0.iter().find(|secret| rest.starts_with(&***secret)) {
                Some(secret) => {
                    redacted.push_str("***");
                    secret.len()
                }
                None => {
                    redacted.push(next);
                    next.len_utf8()
                }
            };
            rest = rest.get(step..).unwrap_or_default();
        }
        redacted
    }

    /// The first 500 bytes of a body on one line; empty if the response has no body.
    pub(in crate::transactions) async fn excerpt(&self, response: Response) -> String {
        self.format(&read_beginning(response).await)
    }

    /// Cuts, redacts and formats the bytes of a body.
    fn format(&self, body: &[u8]) -> String {
        let text: Cow<'_, str> = String::from_utf8_lossy(body);
        let redacted = self.redact_until(&text, EXCERPT_BYTES);
        let ellipsis = if text.len() > EXCERPT_BYTES { "…" } else { "" };
        let line: String = redacted.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        format!("{}{ellipsis}", line.trim())
    }
}

/// Reads the beginning of a body. Returns what has arrived if the body breaks off or takes too long.
async fn read_beginning(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    let read = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() >= READ_BYTES {
                break;
            }
        }
    };
    // After a time-out the excerpt is what has arrived so far.
    let _ = tokio::time::timeout(READ_TIMEOUT, read).await;
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(url: &str) -> Secrets {
        Secrets::of(&Url::parse(url).expect("a URL"))
    }

    #[test]
    fn secrets_of_a_url_are_redacted_in_every_encoding() {
        let secrets = secrets(
            "https://user:p%40ss+w0rd@host/charge/0123456789abcdef0123?key=hid%2Fden&v=1&empty=&flag-without-value",
        );
        for (text, expected) in [
            ("p%40ss+w0rd and p@ss+w0rd", "*** and ***"),
            ("key=hid%2Fden, hid/den", "key=***, ***"),
            ("Basic dXNlcjpwQHNzK3cwcmQ=", "Basic ***"),
            ("POST /charge/0123456789abcdef0123", "POST /charge/***"),
            ("v=1 user host", "v=1 user host"),
        ] {
            assert_eq!(secrets.redact(text), expected, "{text}");
        }
        assert_eq!(self::secrets("https://sk_live_1@host/").redact("sk_live_1 and c2tfbGl2ZV8xOg=="), "*** and ***");
        assert_eq!(self::secrets("https://host/").redact("nothing is secret"), "nothing is secret");
    }

    #[test]
    fn an_excerpt_has_500_bytes_and_no_part_of_a_secret() {
        let secrets = secrets("https://host/?key=secret-key");
        assert_eq!(secrets.format(b""), "");
        assert_eq!(secrets.format(b" {\r\n\t\"a\":\0 1}\n"), "{   \"a\":  1}");
        assert_eq!(secrets.format(&[b'x', 0xff, b'y']), "x\u{fffd}y");
        assert_eq!(secrets.format(&[b'x'; 500]), "x".repeat(500));
        assert_eq!(secrets.format(&[b'x'; 501]), format!("{}…", "x".repeat(500)));
        // The cut is within a character, then within a secret.
        assert_eq!(secrets.format(format!("{}é", "x".repeat(499)).as_bytes()), format!("{}…", "x".repeat(499)));
        let across = format!("{}secret-key", "x".repeat(495));
        assert_eq!(secrets.format(across.as_bytes()), format!("{}***…", "x".repeat(495)));
        let many = "secret-key".repeat(1000);
        assert!(!secrets.format(many.as_bytes()).contains("sec"), "the excerpt contains a part of a secret");
    }
}
