//! Configuration of callbacks: the destinations, each with its URL and the secrets that sign for it.

use std::{collections::BTreeSet, fmt};

use url::Url;

use super::resolver::check_host;
use crate::transactions::webhook_secret::{WebhookSecret, example, split_sender};
use runtime::{config::EnvReader, secret::Secret};

const URL_EXAMPLE: &str = "such as CALLBACK_URL=https://receiver.example.com/hook";

/// The settings of callbacks.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// `CALLBACK_URL`, `CALLBACK_SECRET`: where settlements are sent; empty means nowhere.
    pub destinations: Vec<DestinationConfig>,
    /// `CALLBACK_ALLOW_PRIVATE`: whether a destination may have an address that is not public.
    pub allow_private: bool,
}

/// A receiver of callbacks.
#[derive(Debug, Clone)]
pub struct DestinationConfig {
    /// The sender whose settlements it gets; empty for those of all senders without a destination of their own.
    pub name: String,
    pub url: CallbackUrl,
    /// Each of them signs every delivery.
    pub secrets: Vec<Secret<Vec<u8>>>,
}

/// A URL of a receiver. Its path and query may contain a token, so `Debug` shows only the server.
#[derive(Clone, PartialEq, Eq)]
pub struct CallbackUrl(Url);

impl CallbackUrl {
    /// The URL itself, for the request.
    pub(super) fn expose(&self) -> &Url {
        &self.0
    }
}

impl fmt::Debug for CallbackUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallbackUrl({}…)", self.0.origin().ascii_serialization())
    }
}

impl Config {
    /// Reads the variables that are named at the fields.
    pub fn read(vars: &mut EnvReader) -> Self {
        let allow_private = vars.read("CALLBACK_ALLOW_PRIVATE", false, |text| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("must be true or false, such as CALLBACK_ALLOW_PRIVATE=true".into()),
        });
        let urls = vars.read("CALLBACK_URL", Vec::new(), |text| read_urls(text, allow_private));
        let secrets =
            vars.read("CALLBACK_SECRET", Vec::new(), |text| WebhookSecret::parse_list("CALLBACK_SECRET", text));
        // A secret that cannot be read has its own error.
        if !secrets.is_empty() || !vars.is_set("CALLBACK_SECRET") {
            for expected in unmatched(&urls, &secrets) {
                vars.add_error("CALLBACK_SECRET", &expected);
            }
        }
        let destination = |(name, url): (String, Url)| {
            let secrets = secrets_of(&secrets, &name).cloned().collect();
            DestinationConfig { name, url: CallbackUrl(url), secrets }
        };
        Self { destinations: urls.into_iter().map(destination).collect(), allow_private }
    }
}

fn read_urls(text: &str, allow_private: bool) -> Result<Vec<(String, Url)>, String> {
    let mut urls: Vec<(String, Url)> = Vec::new();
    for entry in text.split(',').map(str::trim) {
        let (name, url) = split_sender(entry, &["http://", "https://"])
            .and_then(|(name, url)| Some((name.unwrap_or_default(), Url::parse(url).ok()?)))
            .filter(|(_, url)| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| {
                format!(
                    "must be an http or https URL, or several separated by commas, each with the name of its sender if you \
                     want, as in acme:https://…; {URL_EXAMPLE}"
                )
            })?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(format!("must be a URL without user and password: receivers check signatures; {URL_EXAMPLE}"));
        }
        if let Err(refused) = check_host(&url)
            && !allow_private
        {
            return Err(format!("must be the URL of a public server ({refused}); {URL_EXAMPLE}"));
        }
        if urls.iter().any(|(other, _)| other == name) {
            return Err(format!("must be one URL for each sender, and one without a name; {URL_EXAMPLE}"));
        }
        urls.push((name.to_owned(), url));
    }
    Ok(urls)
}

/// The secrets of a destination: those of its name, or those without a name if none has it.
fn secrets_of<'s>(secrets: &'s [WebhookSecret], name: &'s str) -> impl Iterator<Item = &'s Secret<Vec<u8>>> {
    let has_own = secrets.iter().any(|secret| secret.sender.as_deref() == Some(name));
    let owner = has_own.then_some(name);
    secrets.iter().filter(move |secret| secret.sender.as_deref() == owner).map(|secret| &secret.secret)
}

/// What is missing: URLs without a secret, and secrets of senders without a URL.
fn unmatched(urls: &[(String, Url)], secrets: &[WebhookSecret]) -> Vec<String> {
    let example = example("CALLBACK_SECRET");
    let mut errors = Vec::new();
    for (name, _) in urls.iter().filter(|(name, _)| secrets_of(secrets, name).next().is_none()) {
        errors.push(match name.as_str() {
            "" => format!("must be set for CALLBACK_URL, such as {example}"),
            name => format!("must be set for {name} of CALLBACK_URL, such as {example}"),
        });
    }
    let owners: BTreeSet<&str> = secrets.iter().filter_map(|secret| secret.sender.as_deref()).collect();
    // Without any URL nothing is sent, and secrets do no harm.
    for owner in owners.into_iter().filter(|_| !urls.is_empty()) {
        if !urls.iter().any(|(name, _)| name == owner) {
            errors.push(format!(
                "must be without {owner}, which has no URL of its own in CALLBACK_URL, such as {example}"
            ));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NEW: &str = "whsec_YW5vdGhlciBzZWNyZXQgb2YgdGhlc2UgdGVzdHM=";
    const HOOK: &str = "https://receiver.example.com/hook";

    fn read(pairs: &[(&str, &str)]) -> Result<Config, String> {
        let mut vars = EnvReader::from_pairs(pairs);
        let config = Config::read(&mut vars);
        vars.finish(config).map_err(|errors| errors.to_string())
    }

    /// Each destination with its host and the number of its secrets.
    fn summary(config: &Config) -> Vec<(String, String, usize)> {
        let host = |one: &DestinationConfig| one.url.0.host_str().unwrap_or_default().to_owned();
        config.destinations.iter().map(|one| (one.name.clone(), host(one), one.secrets.len())).collect()
    }

    #[test]
    fn without_a_url_nothing_is_sent() {
        for pairs in [
            &[][..],
            &[("CALLBACK_SECRET", OLD)],
            &[("CALLBACK_SECRET", "acme:whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")],
        ] {
            let config = read(pairs).expect("valid");
            assert!(config.destinations.is_empty() && !config.allow_private);
        }
    }

    #[test]
    fn each_destination_has_every_secret_of_its_own_or_else_the_common_ones() {
        let rotated = format!("{OLD}, {NEW}");
        let config = read(&[("CALLBACK_URL", HOOK), ("CALLBACK_SECRET", &rotated)]).expect("valid");
        assert_eq!(summary(&config), [("".into(), "receiver.example.com".into(), 2)]);

        let urls = "acme:https://a.example/hook, b.2_-:http://b.example:8080/?x=1 ,https://rest.example/hook";
        let secrets = format!("acme:{OLD},acme:{NEW},{OLD}");
        let config = read(&[("CALLBACK_URL", urls), ("CALLBACK_SECRET", &secrets)]).expect("valid");
        let expected = [("acme", "a.example", 2), ("b.2_-", "b.example", 1), ("", "rest.example", 1)];
        assert_eq!(summary(&config), expected.map(|(name, host, secrets)| (name.into(), host.into(), secrets)));
    }

    #[test]
    fn wrong_urls_are_refused_with_an_example() {
        let long = format!("{}:{HOOK}", "a".repeat(65));
        for (url, why) in [
            ("receiver.example.com", "http or https URL"),
            ("ftp://receiver.example.com/", "http or https URL"),
            ("acme:ftp://receiver.example.com/", "http or https URL"),
            (":https://receiver.example.com/", "http or https URL"),
            ("a b:https://receiver.example.com/", "http or https URL"),
            (&long, "http or https URL"),
            ("https://receiver.example.com/,", "http or https URL"),
            ("https://", "http or https URL"),
            ("https://user@receiver.example.com/", "without user and password"),
            ("https://:hunter2@receiver.example.com/", "without user and password"),
            ("http://127.0.0.1/", "127.0.0.1 is not a public address"),
            ("http://2130706433/", "127.0.0.1 is not a public address"),
            ("http://0177.0.0.1/", "127.0.0.1 is not a public address"),
            ("http://[::ffff:10.0.0.1]/", "is not a public address"),
            ("acme:http://169.254.169.254/latest", "169.254.169.254 is not a public address"),
            ("http://localhost.:8000/", "localhost. is this machine"),
            ("https://a.example/,https://b.example/", "one URL for each sender"),
            ("acme:https://a.example/,acme:https://b.example/", "one URL for each sender"),
        ] {
            let error = read(&[("CALLBACK_URL", url), ("CALLBACK_SECRET", OLD)]).expect_err(url);
            assert!(error.starts_with("CALLBACK_URL: must be ") && error.contains(why), "{url}: {error}");
            assert!(error.contains("such as CALLBACK_URL=https://") && !error.contains("hunter2"), "{url}: {error}");
        }
        for url in ["http://127.0.0.1:8000/", "acme:http://localhost/", "http://[fd00::1]/"] {
            let allowed = [("CALLBACK_URL", url), ("CALLBACK_SECRET", OLD), ("CALLBACK_ALLOW_PRIVATE", "true")];
            assert!(read(&allowed).expect(url).allow_private);
        }
        let error = read(&[("CALLBACK_ALLOW_PRIVATE", "yes")]).expect_err("yes");
        assert!(error.starts_with("CALLBACK_ALLOW_PRIVATE: must be true or false"), "{error}");
    }

    #[test]
    fn a_url_needs_a_secret_and_a_secret_with_a_name_needs_a_url() {
        let own = format!("acme:{OLD}");
        for (url, secret, why) in [
            (HOOK, None, "must be set for CALLBACK_URL"),
            (HOOK, Some("whsec_dG9vIHNob3J0"), "24 to 64 bytes"),
            (HOOK, Some("whsec_"), "24 to 64 bytes"),
            (HOOK, Some("hunter2"), "24 to 64 bytes"),
            (HOOK, Some("acme:acme:whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "24 to 64 bytes"),
            (HOOK, Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw,"), "24 to 64 bytes"),
            ("acme:https://a.example/,beta:https://b.example/", Some(&own), "must be set for beta of CALLBACK_URL"),
            ("acme:https://a.example/,https://b.example/", Some(&own), "must be set for CALLBACK_URL"),
            ("beta:https://b.example/", Some(&format!("{own},{NEW}")), "must be without acme"),
        ] {
            let mut pairs = vec![("CALLBACK_URL", url)];
            pairs.extend(secret.map(|secret| ("CALLBACK_SECRET", secret)));
            let error = read(&pairs).expect_err(why);
            assert!(error.starts_with("CALLBACK_SECRET: must be ") && error.contains(why), "{error}");
            assert!(error.contains("such as CALLBACK_SECRET=") && error.lines().count() == 1, "{error}");
            assert!(!error.contains("hunter2") && !error.contains(&OLD[6..]), "{error}");
        }
    }

    #[test]
    fn neither_a_secret_nor_a_token_of_a_url_is_printed() {
        let pairs = [("CALLBACK_URL", "acme:https://a.example/T0KEN/x?key=hunter2"), ("CALLBACK_SECRET", OLD)];
        let debug = format!("{:?}", read(&pairs).expect("valid"));
        assert!(debug.contains("https://a.example"), "{debug}");
        for secret in ["T0KEN", "hunter2", &OLD[6..], "49, 242"] {
            assert!(!debug.contains(secret), "{debug}");
        }
    }
}
