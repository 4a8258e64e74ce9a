//! The configuration of the API: one struct per concern, with the defaults. Each field names its environment variable first.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use jobs::transactions::webhook_secret::{self, WebhookSecret};
use runtime::{
    config::{EnvReader, Environment},
    secret::Secret,
};

use crate::{auth::KeysConfig, client_address::TrustedProxies, cors::AllowedOrigins, rate_limit::Policy};

/// The default API key; prod refuses it.
const DEFAULT_API_KEY: &str = "your-secret-api-key-here";
/// The default admin key; prod refuses it.
const DEFAULT_ADMIN_API_KEY: &str = "your-admin-api-key-here";
/// The longest drain delay, in seconds. A stop takes at most 30 s; the remaining time is for open requests.
const MAX_DRAIN_DELAY: f64 = 15.0;
/// HS256 requires a key at least as long as its hash (RFC 7518 §3.2), in bytes.
const MIN_JWT_SECRET: usize = 32;
/// The minimum length of a key in prod, in characters.
const MIN_KEY_LENGTH: usize = 24;
/// Secrets from our documentation. Everyone can read them, so prod refuses them for every variable.
const PUBLISHED_SECRETS: [&str; 5] = [
    DEFAULT_API_KEY,
    DEFAULT_ADMIN_API_KEY,
    "change-me-to-32-bytes-or-more-of-your-own",
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "a-key-for-viewers-of-your-own",
];
/// The only optional key.
const VIEWER_API_KEY: &str = "VIEWER_API_KEY";

/// The configuration of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiConfig {
    /// `HOST`: the address to listen on.
    pub host: IpAddr,
    /// `PORT`: the port to listen on; 0 chooses a free port.
    pub port: u16,
    /// `DRAIN_DELAY_SECONDS`: the time after SIGTERM in which connections are still accepted.
    pub drain_delay: Duration,
    /// `ENV`: `dev`, `test` or `prod`.
    pub environment: Environment,
    /// Signatures and conflicts of webhooks.
    pub webhook: WebhookConfig,
    /// The keys of callers.
    pub keys: KeysConfig,
    /// `CORS_ORIGINS`: the origins whose pages may call the API.
    pub allowed_origins: AllowedOrigins,
    /// `TRUSTED_PROXIES`: the proxies whose forwarding headers are trusted.
    pub trusted_proxies: TrustedProxies,
    /// `TRANSACTIONS_READ`: the callers who may read transactions.
    pub transactions_read: TransactionsRead,
    /// `RATE_LIMIT`: the limit of the price routes per credential.
    pub prices_limit: Policy,
    /// `BOARD`: whether the operators' pages are served under `/board`.
    pub board: bool,
}

/// The callers who may read and list transactions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TransactionsRead {
    /// All callers, also without a credential.
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

/// Signatures and conflicts of webhooks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebhookConfig {
    /// `WEBHOOK_SECRET`: the secrets, each of which may sign. If empty, signatures are not required; prod then requires the
    /// explicit value `none`.
    pub secrets: Vec<WebhookSecret>,
    /// `WEBHOOK_CONFLICT`: the response to a known id with a different payload.
    pub conflict: ConflictPolicy,
    /// `WEBHOOK_QUOTA`: the webhooks of each sender in a window; `None` without a limit.
    pub quota: Option<Policy>,
}

/// The response to a known transaction id with a different payload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ConflictPolicy {
    /// 202: a header names the differing fields, and the first payload stays.
    #[default]
    Accept,
    /// 409: the request fails.
    Reject,
}

impl Default for ApiConfig {
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
                viewer: None,
                jwt: None,
            },
            allowed_origins: AllowedOrigins::None,
            trusted_proxies: TrustedProxies::default(),
            transactions_read: TransactionsRead::Open,
            prices_limit: Policy::PRICES,
            board: true,
        }
    }
}

impl ApiConfig {
    /// Reads the variables of the API; `vars` collects the errors.
    pub fn read(vars: &mut EnvReader) -> Self {
        let default = Self::default();
        let environment = Environment::read(vars);
        Self {
            host: vars.host(),
            port: vars.number("PORT", default.port, 0..=u16::MAX),
            drain_delay: vars.seconds("DRAIN_DELAY_SECONDS", 0.0, 0.0..=MAX_DRAIN_DELAY),
            environment,
            webhook: WebhookConfig::read(vars, environment),
            keys: KeysConfig::read(vars, environment, default.keys),
            allowed_origins: AllowedOrigins::read(vars, environment),
            trusted_proxies: TrustedProxies::read(vars),
            transactions_read: TransactionsRead::read(vars, environment),
            prices_limit: Policy::read(vars),
            board: vars.read("BOARD", true, |text| match text {
                "on" => Ok(true),
                "off" => Ok(false),
                _ => Err("must be on or off, such as BOARD=off".into()),
            }),
        }
    }
}

impl WebhookConfig {
    fn read(vars: &mut EnvReader, environment: Environment) -> Self {
        if environment == Environment::Prod && !vars.is_set("WEBHOOK_SECRET") {
            let example = example_of("WEBHOOK_SECRET");
            let expected = format!("must be set in prod, such as {example}, or to none if webhooks are not signed");
            vars.add_error("WEBHOOK_SECRET", &expected);
        }
        Self {
            secrets: vars.read("WEBHOOK_SECRET", Vec::new(), |text| {
                if text == "none" {
                    return Ok(Vec::new());
                }
                let secrets = WebhookSecret::parse_list("WEBHOOK_SECRET", text);
                secrets.map_err(|expected| format!("{expected}; or none"))
            }),
            conflict: vars.read("WEBHOOK_CONFLICT", ConflictPolicy::Accept, |text| match text {
                "accept" => Ok(ConflictPolicy::Accept),
                "reject" => Ok(ConflictPolicy::Reject),
                _ => Err("must be accept or reject, such as WEBHOOK_CONFLICT=accept".into()),
            }),
            quota: Policy::read_webhook_quota(vars),
        }
    }
}

impl KeysConfig {
    fn read(vars: &mut EnvReader, environment: Environment, default: Self) -> Self {
        let jwt = vars.read("JWT_SECRET", None, |text| {
            if text.len() < MIN_JWT_SECRET {
                let example = example_of("JWT_SECRET");
                return Err(format!("must be at least {MIN_JWT_SECRET} bytes long, such as {example}"));
            }
            Ok(Some(Secret::new(text)))
        });
        let keys = Self {
            api: vars.read("API_KEY", default.api, |text| read_key("API_KEY", text)),
            admin: vars.read("ADMIN_API_KEY", default.admin, |text| read_key("ADMIN_API_KEY", text)),
            viewer: vars.read("VIEWER_API_KEY", None, |text| read_key("VIEWER_API_KEY", text).map(Some)),
            jwt,
        };
        if environment == Environment::Prod {
            check_prod_secrets(vars);
        }
        keys
    }
}

/// Reads a key, which must be sendable in a header.
fn read_key(name: &str, text: &str) -> Result<Secret<Vec<u8>>, String> {
    if text.contains(char::is_control) {
        return Err(format!("must be without control characters, such as {}", example_of(name)));
    }
    Ok(Secret::new(text))
}

/// Checks the secrets in prod: each is unpublished and long enough, all differ, and those without a default are set.
fn check_prod_secrets(vars: &mut EnvReader) {
    let mut seen: Vec<(&str, String)> = Vec::new();
    let checked = [
        ("JWT_SECRET", 0),
        ("API_KEY", MIN_KEY_LENGTH),
        ("ADMIN_API_KEY", MIN_KEY_LENGTH),
        (VIEWER_API_KEY, MIN_KEY_LENGTH),
    ];
    for (name, min_length) in checked {
        match vars.text(name) {
            // An unreadable file has its own error, and the viewer's key is optional.
            None if vars.is_set(name) || name == VIEWER_API_KEY => {}
            None => vars.add_error(name, &format!("must be set in prod, such as {}", example_of(name))),
            Some(text) if text.chars().count() < min_length => {
                let example = example_of(name);
                vars.add_error(name, &format!("must have at least {min_length} characters in prod, such as {example}"));
            }
            Some(text) => seen.push((name, text)),
        }
    }
    for name in ["WEBHOOK_SECRET", "CALLBACK_SECRET"] {
        let Some(secrets) = vars.text(name) else { continue };
        let without_sender = |entry: &str| entry.split_once(':').map_or(entry, |(_, secret)| secret).to_owned();
        seen.extend(secrets.split(',').map(|entry| (name, without_sender(entry.trim()))));
    }
    for (index, (name, text)) in seen.iter().enumerate() {
        let duplicate = seen[..index].iter().find(|(other, value)| other != name && value == text);
        if PUBLISHED_SECRETS.contains(&&**text) {
            let example = example_of(name);
            let expected = format!("must be your own secret in prod (this value is published), such as {example}");
            vars.add_error(name, &expected);
        } else if let Some((other, _)) = duplicate {
            vars.add_error(name, &format!("must differ from {other} in prod, such as {}", example_of(name)));
        }
    }
}

/// A shell example that creates a secret for this variable.
fn example_of(name: &str) -> String {
    match name {
        "WEBHOOK_SECRET" | "CALLBACK_SECRET" => webhook_secret::example(name),
        _ => format!("{name}=\"$(openssl rand -hex 32)\""),
    }
}

#[cfg(test)]
mod tests;
