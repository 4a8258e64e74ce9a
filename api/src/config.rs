//! The settings of the API: one struct per concern, each default here, each variable named in its field's first line.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use jobs::config::{EnvReader, Environment};

use crate::{client_address::TrustedProxies, cors::Origins, rate_limit::Policy};

/// The API key that only `dev` and `test` accept as one.
const DEFAULT_API_KEY: &str = "your-secret-api-key-here";
/// The admin key that only `dev` and `test` accept as one.
const DEFAULT_ADMIN_API_KEY: &str = "your-admin-api-key-here";
/// In seconds. A whole stop takes at most 30 s; the rest of them is for open requests.
const LONGEST_DRAIN_DELAY: f64 = 15.0;
/// HS256 wants a key at least as long as its hash (RFC 7518 §3.2).
const SHORTEST_JWT_SECRET: usize = 32;
/// The least length of a key in prod, in characters.
const SHORTEST_KEY: usize = 24;
/// Secrets that stand in our documentation: anyone can read them there, so prod refuses them wherever they are used.
const PUBLISHED: [&str; 4] = [
    DEFAULT_API_KEY,
    DEFAULT_ADMIN_API_KEY,
    "change-me-to-32-bytes-or-more-of-your-own",
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
];
/// What Standard Webhooks 1.0 says of the length of a secret, in bytes.
const WEBHOOK_SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Everything that can be set about the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `HOST`: the address to listen on.
    pub host: IpAddr,
    /// `PORT`: the port to listen on; 0 is any free one.
    pub port: u16,
    /// `DRAIN_DELAY_SECONDS`: how long connections are still accepted after SIGTERM.
    pub drain_delay: Duration,
    /// `ENV`: `dev`, `test` or `prod`.
    pub environment: Environment,
    /// How webhooks are received.
    pub webhook: WebhookConfig,
    /// Who may call what.
    pub keys: KeysConfig,
    /// `CORS_ORIGINS`: which other sites' pages may call from a browser.
    pub origins: Origins,
    /// `TRUSTED_PROXIES`: whose word on the client's address is taken.
    pub trusted_proxies: TrustedProxies,
    /// `TRANSACTIONS_READ`: who may look transactions up.
    pub transactions_read: TransactionsRead,
    /// `RATE_LIMIT`: what one credential may ask of the price routes.
    pub prices_limit: Policy,
}

/// Who may look transactions up and list them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TransactionsRead {
    /// Everyone who can reach the API.
    #[default]
    Open,
    /// Callers with a key or a token.
    Key,
}

impl TransactionsRead {
    fn read(vars: &mut EnvReader, environment: Environment) -> Self {
        let default = if environment == Environment::Prod { Self::Key } else { Self::Open };
        vars.read("TRANSACTIONS_READ", default, |text| match text {
            "open" => Ok(Self::Open),
            "key" => Ok(Self::Key),
            _ => Err("must be open or key, such as TRANSACTIONS_READ=key".into()),
        })
    }
}

/// How webhooks are received.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebhookConfig {
    /// `WEBHOOK_SECRET`: decoded secrets, any of which may sign; with none of them signatures are not required, which
    /// prod wants to be said by the word `none`.
    pub secrets: Vec<Secret>,
    /// `WEBHOOK_CONFLICT`: what a known id with another payload gets.
    pub conflict: Conflict,
}

/// What a known transaction id with another payload gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Conflict {
    /// 202: the sender is told, and the first payload stands.
    #[default]
    Accept,
    /// 409: the sender is told that it is wrong.
    Reject,
}

/// Who may call what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysConfig {
    /// `API_KEY`: the key of private routes.
    pub api: Secret,
    /// `ADMIN_API_KEY`: the key of admin routes.
    pub admin: Secret,
    /// `JWT_SECRET`: signs the tokens of users; unset means one made at random for this start.
    pub jwt: Option<Secret>,
}

/// Bytes that are never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Hides these bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes, for the one computation that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 8000,
            drain_delay: Duration::ZERO,
            environment: Environment::Dev,
            webhook: WebhookConfig::default(),
            keys: KeysConfig {
                api: Secret::new(DEFAULT_API_KEY),
                admin: Secret::new(DEFAULT_ADMIN_API_KEY),
                jwt: None,
            },
            origins: Origins::None,
            trusted_proxies: TrustedProxies::default(),
            transactions_read: TransactionsRead::Open,
            prices_limit: Policy::PRICES,
        }
    }
}

impl Config {
    /// Reads the variables of the API; what is wrong with them is noted in `vars`.
    pub fn read(vars: &mut EnvReader) -> Self {
        let default = Self::default();
        let environment = Environment::read(vars);
        Self {
            host: vars.host(),
            port: vars.number("PORT", default.port, 0..=u16::MAX),
            drain_delay: vars.seconds("DRAIN_DELAY_SECONDS", 0.0, 0.0..=LONGEST_DRAIN_DELAY),
            environment,
            webhook: WebhookConfig::read(vars, environment),
            keys: KeysConfig::read(vars, environment, default.keys),
            origins: Origins::read(vars, environment),
            trusted_proxies: TrustedProxies::read(vars),
            transactions_read: TransactionsRead::read(vars, environment),
            prices_limit: Policy::read(vars),
        }
    }
}

impl WebhookConfig {
    fn read(vars: &mut EnvReader, environment: Environment) -> Self {
        let example = example_of("WEBHOOK_SECRET");
        if environment == Environment::Prod && !vars.is_set("WEBHOOK_SECRET") {
            let expected = format!("must be set in prod, such as {example}, or to none if webhooks are not signed");
            vars.add_error("WEBHOOK_SECRET", &expected);
        }
        Self {
            secrets: vars.read("WEBHOOK_SECRET", Vec::new(), |text| {
                if text == "none" {
                    return Ok(Vec::new());
                }
                let secrets: Option<Vec<_>> = text.split(',').map(|secret| webhook_secret(secret.trim())).collect();
                secrets.ok_or_else(|| {
                    format!(
                        "must be whsec_ and 24 to 64 bytes in base64, several separated by commas, such as {example}; \
                         or none"
                    )
                })
            }),
            conflict: vars.read("WEBHOOK_CONFLICT", Conflict::Accept, |text| match text {
                "accept" => Ok(Conflict::Accept),
                "reject" => Ok(Conflict::Reject),
                _ => Err("must be accept or reject, such as WEBHOOK_CONFLICT=accept".into()),
            }),
        }
    }
}

impl KeysConfig {
    fn read(vars: &mut EnvReader, environment: Environment, default: Self) -> Self {
        let jwt = vars.read("JWT_SECRET", None, |text| {
            if text.len() < SHORTEST_JWT_SECRET {
                let example = example_of("JWT_SECRET");
                return Err(format!("must be at least {SHORTEST_JWT_SECRET} bytes long, such as {example}"));
            }
            Ok(Some(Secret::new(text)))
        });
        let keys = Self {
            api: vars.read("API_KEY", default.api, |text| Ok(Secret::new(text))),
            admin: vars.read("ADMIN_API_KEY", default.admin, |text| Ok(Secret::new(text))),
            jwt,
        };
        if environment == Environment::Prod {
            check_secrets(vars);
        }
        keys
    }
}

/// What prod wants of secrets: each is set, unpublished and long enough, and no two are the same.
fn check_secrets(vars: &mut EnvReader) {
    let mut seen: Vec<(&str, String)> = Vec::new();
    for (name, shortest) in [("JWT_SECRET", 0), ("API_KEY", SHORTEST_KEY), ("ADMIN_API_KEY", SHORTEST_KEY)] {
        match vars.text(name) {
            None if vars.is_set(name) => {}
            None => vars.add_error(name, &format!("must be set in prod, such as {}", example_of(name))),
            Some(text) if text.chars().count() < shortest => {
                let example = example_of(name);
                vars.add_error(name, &format!("must have at least {shortest} characters in prod, such as {example}"));
            }
            Some(text) => seen.push((name, text)),
        }
    }
    let secrets = vars.text("WEBHOOK_SECRET").unwrap_or_default();
    seen.extend(secrets.split(',').map(|secret| ("WEBHOOK_SECRET", secret.trim().to_owned())));
    for (at, (name, text)) in seen.iter().enumerate() {
        let twin = seen[..at].iter().find(|(other, same)| other != name && same == text);
        if PUBLISHED.contains(&&**text) {
            let example = example_of(name);
            vars.add_error(
                name,
                &format!("must be one of your own in prod, and this one is published; such as {example}"),
            );
        } else if let Some((twin, _)) = twin {
            vars.add_error(name, &format!("must differ from {twin} in prod, such as {}", example_of(name)));
        }
    }
}

/// How to make a secret for this variable.
fn example_of(name: &str) -> String {
    match name {
        "WEBHOOK_SECRET" => format!("{name}=\"whsec_$(openssl rand -base64 32)\""),
        _ => format!("{name}=\"$(openssl rand -hex 32)\""),
    }
}

fn webhook_secret(text: &str) -> Option<Secret> {
    let bytes = STANDARD.decode(text.strip_prefix("whsec_")?).ok()?;
    WEBHOOK_SECRET_BYTES.contains(&bytes.len()).then(|| Secret::new(bytes))
}

#[cfg(test)]
mod tests;
