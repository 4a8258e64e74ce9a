//! The secrets that sign webhooks, as `WEBHOOK_SECRET` and `CALLBACK_SECRET` list them.

use std::{ops::RangeInclusive, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};

use runtime::secret::Secret;

/// How a secret begins, by Standard Webhooks 1.0.
const PREFIX: &str = "whsec_";
/// The length of a secret in bytes, by Standard Webhooks 1.0.
const BYTES: RangeInclusive<usize> = 24..=64;
/// The longest name of a sender.
const MAX_SENDER_NAME: usize = 64;

/// A secret that signs webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSecret {
    /// The sender that holds it, as in `acme:whsec_…`. Two secrets of one sender have the same name.
    pub sender: Option<Arc<str>>,
    /// The decoded secret.
    pub secret: Secret<Vec<u8>>,
}

impl WebhookSecret {
    /// Reads the secrets that the value of a variable lists, separated by commas.
    ///
    /// # Errors
    /// The expected form, with an example for this variable.
    pub fn parse_list(variable: &str, value: &str) -> Result<Vec<Self>, String> {
        let secrets: Option<Vec<_>> = value.split(',').map(|entry| Self::parse(entry.trim())).collect();
        secrets.ok_or_else(|| {
            format!(
                "must be whsec_ and 24 to 64 bytes in base64, or several separated by commas, each with the name of its \
                 sender if you want, as in acme:whsec_…; such as {}",
                example(variable)
            )
        })
    }

    fn parse(entry: &str) -> Option<Self> {
        let (sender, secret) = split_sender(entry, &[PREFIX])?;
        let bytes = STANDARD.decode(secret.strip_prefix(PREFIX)?).ok()?;
        BYTES.contains(&bytes.len()).then(|| Self { sender: sender.map(Arc::from), secret: Secret::new(bytes) })
    }
}

/// A shell command that sets the variable to a new secret.
pub fn example(variable: &str) -> String {
    format!("{variable}=\"whsec_$(openssl rand -base64 32)\"")
}

/// Splits an entry such as `acme:whsec_…` into the name of the sender and the rest. An entry that begins with one of
/// `starts` has no name. `None` if the name is wrong.
pub(super) fn split_sender<'e>(entry: &'e str, starts: &[&str]) -> Option<(Option<&'e str>, &'e str)> {
    if starts.iter().any(|start| entry.starts_with(start)) {
        return Some((None, entry));
    }
    let (name, rest) = entry.split_once(':')?;
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_name = (1..=MAX_SENDER_NAME).contains(&name.len()) && name.bytes().all(is_name_byte);
    is_name.then_some((Some(name), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_the_name_of_a_sender() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let read = |value: &str| WebhookSecret::parse_list("CALLBACK_SECRET", value);
        assert_eq!(read(&format!("{secret}, acme:{secret}")).map(|secrets| secrets.len()), Ok(2));
        // A colon instead of a comma. Names are shown, so this one would give the secret away.
        let error = read(&format!("{secret}:{secret}")).expect_err("not a name");
        assert!(error.ends_with(&example("CALLBACK_SECRET")) && !error.contains("MfKQ"), "{error}");
    }
}
