//! What an operator reads of a failed call: the beginning of the processor's body, without the secrets of its URL.

use std::{borrow::Cow, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use percent_encoding::percent_decode_str;
use reqwest::Response;
use url::{Url, form_urlencoded};

/// As much of a body is kept.
const KEPT: usize = 500;
/// As much is read: a secret that begins within the first 500 bytes must be recognised as a whole.
const READ: usize = 16 << 10;
/// A body that does not come keeps no attempt waiting.
const LIMIT: Duration = Duration::from_secs(2);
/// Shorter values of a query, such as `v=1`, are no secrets, and hiding them would hide half of a text.
const SHORTEST: usize = 4;
/// A part of a path as long as this may be a token.
const TOKEN: usize = 16;

/// Texts that must not appear in a log or an error.
#[derive(Default)]
pub struct Secrets(Vec<String>);

impl Secrets {
    /// Those of a URL: its password, as it is written, decoded and as `Authorization` carries it; the values of its query;
    /// and parts of its path that are as long as tokens.
    pub fn of(url: &Url) -> Self {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let mut secrets = Vec::new();
        if let Some(password) = url.password() {
            let (user, plain) = (decoded(url.username()), decoded(password));
            secrets.extend([STANDARD.encode(format!("{user}:{plain}")), password.to_owned(), plain]);
        } else if !url.username().is_empty() {
            // A key without a password is written in its place.
            secrets.extend([STANDARD.encode(format!("{}:", decoded(url.username()))), url.username().to_owned()]);
        }
        let written =
            url.query().unwrap_or_default().split('&').map(|pair| pair.split_once('=').map_or(pair, |(_, v)| v));
        secrets.extend(written.filter(|value| value.len() >= SHORTEST).map(str::to_owned));
        let read = form_urlencoded::parse(url.query().unwrap_or_default().as_bytes());
        secrets.extend(read.map(|(_, value)| value.into_owned()).filter(|value| value.len() >= SHORTEST));
        for part in url.path_segments().into_iter().flatten().filter(|part| part.len() >= TOKEN) {
            secrets.extend([part.to_owned(), decoded(part)]);
        }
        secrets.retain(|secret| !secret.is_empty());
        // The longest first: one may be a part of another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(secrets)
    }

    /// The text without them.
    pub fn hide(&self, text: &str) -> String {
        self.hide_until(text, text.len())
    }

    /// The first `end` bytes of a text without the secrets that begin there.
    fn hide_until(&self, text: &str, end: usize) -> String {
        let mut shown = String::with_capacity(end.min(text.len()));
        let mut rest = text;
        while let Some(next) = rest.chars().next()
            && text.len() - rest.len() + next.len_utf8() <= end
        {
            let step = match self.0.iter().find(|secret| rest.starts_with(&***secret)) {
                Some(secret) => {
                    shown.push_str("***");
                    secret.len()
                }
                None => {
                    shown.push(next);
                    next.len_utf8()
                }
            };
            rest = rest.get(step..).unwrap_or_default();
        }
        shown
    }

    /// The first 500 bytes of a body, on one line; empty when the response has no body.
    pub async fn excerpt(&self, response: Response) -> String {
        self.shorten(&beginning(response).await)
    }

    fn shorten(&self, body: &[u8]) -> String {
        let text: Cow<'_, str> = String::from_utf8_lossy(body);
        let shown = self.hide_until(&text, KEPT);
        let cut = if text.len() > KEPT { "…" } else { "" };
        let line: String = shown.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        format!("{}{cut}", line.trim())
    }
}

/// The beginning of a body, or what there is of it when it breaks off or takes too long.
async fn beginning(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    let read = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() >= READ {
                break;
            }
        }
    };
    // What came before the limit is enough.
    let _ = tokio::time::timeout(LIMIT, read).await;
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(url: &str) -> Secrets {
        Secrets::of(&Url::parse(url).expect("a URL"))
    }

    #[test]
    fn the_secrets_of_a_url_are_hidden_however_they_are_written() {
        let secrets = secrets(
            "https://user:p%40ss+w0rd@host/charge/0123456789abcdef0123?key=hid%2Fden&v=1&empty=&flag-without-value",
        );
        for (text, shown) in [
            ("p%40ss+w0rd and p@ss+w0rd", "*** and ***"),
            ("key=hid%2Fden, hid/den", "key=***, ***"),
            ("Basic dXNlcjpwQHNzK3cwcmQ=", "Basic ***"),
            ("POST /charge/0123456789abcdef0123", "POST /charge/***"),
            ("v=1 user host", "v=1 user host"),
        ] {
            assert_eq!(secrets.hide(text), shown, "{text}");
        }
        assert_eq!(self::secrets("https://sk_live_1@host/").hide("sk_live_1 and c2tfbGl2ZV8xOg=="), "*** and ***");
        assert_eq!(self::secrets("https://host/").hide("nothing is secret"), "nothing is secret");
    }

    #[test]
    fn the_first_500_bytes_are_kept_and_no_part_of_a_secret() {
        let secrets = secrets("https://host/?key=secret-key");
        assert_eq!(secrets.shorten(b""), "");
        assert_eq!(secrets.shorten(b" {\r\n\t\"a\":\0 1}\n"), "{   \"a\":  1}");
        assert_eq!(secrets.shorten(&[b'x', 0xff, b'y']), "x\u{fffd}y");
        assert_eq!(secrets.shorten(&[b'x'; 500]), "x".repeat(500));
        assert_eq!(secrets.shorten(&[b'x'; 501]), format!("{}…", "x".repeat(500)));
        // Cut within a character, and within a secret.
        assert_eq!(secrets.shorten(format!("{}é", "x".repeat(499)).as_bytes()), format!("{}…", "x".repeat(499)));
        let across = format!("{}secret-key", "x".repeat(495));
        assert_eq!(secrets.shorten(across.as_bytes()), format!("{}***…", "x".repeat(495)));
        let many = "secret-key".repeat(1000);
        assert!(!secrets.shorten(many.as_bytes()).contains("sec"), "not the part of one either");
    }
}
