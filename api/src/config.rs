//! The settings of the API: one struct per concern, each default here, each variable named in its field's first line.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use jobs::config::{Environment, Vars};

use crate::{cors::Origins, rate_limit::Policy};

/// The API key that only `dev` and `test` accept as one.
const DEFAULT_API_KEY: &str = "your-secret-api-key-here";
/// The admin key that only `dev` and `test` accept as one.
const DEFAULT_ADMIN_API_KEY: &str = "your-admin-api-key-here";
/// In seconds. A whole stop takes at most 30 s, and what is left of them is for open requests.
const LONGEST_DRAIN_DELAY: f64 = 15.0;
/// HS256 wants a key at least as long as its hash (RFC 7518 §3.2).
const SHORTEST_JWT_SECRET: usize = 32;
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
    /// `RATE_LIMIT`: what one credential may ask of the price routes.
    pub prices_limit: Policy,
}

/// How webhooks are received.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebhookConfig {
    /// `WEBHOOK_SECRET`: decoded secrets, any of which may sign; none means that signatures are not required.
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
            prices_limit: Policy::PRICES,
        }
    }
}

impl Config {
    /// Reads the variables of the API; what is wrong with them is noted in `vars`.
    pub fn read(vars: &mut Vars) -> Self {
        let default = Self::default();
        let environment = Environment::read(vars);
        Self {
            host: vars.host(),
            port: vars.number("PORT", default.port, 0..=u16::MAX),
            drain_delay: vars.seconds("DRAIN_DELAY_SECONDS", 0.0, 0.0..=LONGEST_DRAIN_DELAY),
            environment,
            webhook: WebhookConfig::read(vars),
            keys: KeysConfig::read(vars, environment, default.keys),
            origins: Origins::read(vars, environment),
            prices_limit: Policy::read(vars),
        }
    }
}

impl WebhookConfig {
    fn read(vars: &mut Vars) -> Self {
        Self {
            secrets: vars.read("WEBHOOK_SECRET", Vec::new(), |text| {
                text.split(',').map(|secret| webhook_secret(secret.trim())).collect::<Option<Vec<_>>>().ok_or_else(|| {
                    let example = "WEBHOOK_SECRET=\"whsec_$(openssl rand -base64 32)\"";
                    format!("must be whsec_ and 24 to 64 bytes in base64, several separated by commas, such as {example}")
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
    fn read(vars: &mut Vars, environment: Environment, default: Self) -> Self {
        let jwt = vars.read("JWT_SECRET", None, |text| {
            if text.len() < SHORTEST_JWT_SECRET {
                let example = "JWT_SECRET=\"$(openssl rand -hex 32)\"";
                return Err(format!("must be at least {SHORTEST_JWT_SECRET} bytes long, such as {example}"));
            }
            Ok(Some(Secret::new(text)))
        });
        if environment == Environment::Prod && vars.text("JWT_SECRET").is_none() {
            vars.problem("JWT_SECRET", "must be set in prod, such as JWT_SECRET=\"$(openssl rand -hex 32)\"");
        }
        let key = |vars: &mut Vars, name, default: Secret| {
            let given = vars.text(name).map(Secret::new).filter(|key| *key != default);
            if environment == Environment::Prod && given.is_none() {
                let expected =
                    format!("must be set to a key of your own in prod, such as {name}=\"$(openssl rand -hex 32)\"");
                vars.problem(name, &expected);
            }
            given.unwrap_or(default)
        };
        Self { api: key(vars, "API_KEY", default.api), admin: key(vars, "ADMIN_API_KEY", default.admin), jwt }
    }
}

fn webhook_secret(text: &str) -> Option<Secret> {
    let bytes = STANDARD.decode(text.strip_prefix("whsec_")?).ok()?;
    WEBHOOK_SECRET_BYTES.contains(&bytes.len()).then(|| Secret::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, String> {
        let mut vars = Vars::from_pairs(pairs);
        let config = Config::read(&mut vars);
        vars.finish(config).map_err(|problems| problems.to_string())
    }

    /// The variables named by the problems, in order.
    fn named(pairs: &[(&str, &str)]) -> Vec<String> {
        let problems = read(pairs).expect_err("should be refused");
        problems.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.to_owned()).collect()
    }

    #[test]
    fn needs_nothing_in_dev() {
        assert_eq!(read(&[]), Ok(Config::default()));
    }

    #[test]
    fn names_every_wrong_value_at_once() {
        let all = named(&[
            ("ENV", "production"),
            ("HOST", "example.com"),
            ("PORT", "65536"),
            ("WEBHOOK_SECRET", "whsec_c2hvcnQ="),
            ("WEBHOOK_CONFLICT", "maybe"),
            ("JWT_SECRET", "too short"),
            ("CORS_ORIGINS", "app.example.com"),
            ("RATE_LIMIT", "120"),
        ]);
        let expected =
            ["ENV", "HOST", "PORT", "WEBHOOK_SECRET", "WEBHOOK_CONFLICT", "JWT_SECRET", "CORS_ORIGINS", "RATE_LIMIT"];
        assert_eq!(all, expected);
    }

    #[test]
    fn prod_wants_keys_of_its_own() {
        assert_eq!(named(&[("ENV", "prod")]), ["JWT_SECRET", "API_KEY", "ADMIN_API_KEY"]);
        assert_eq!(
            named(&[
                ("ENV", "prod"),
                ("API_KEY", DEFAULT_API_KEY),
                ("ADMIN_API_KEY", "mine"),
                ("JWT_SECRET", &"x".repeat(32))
            ]),
            ["API_KEY"]
        );
        let secret = "x".repeat(32);
        let own = [("ENV", "prod"), ("API_KEY", "a"), ("ADMIN_API_KEY", "b"), ("JWT_SECRET", &*secret)];
        assert_eq!(read(&own).map(|config| config.keys.api), Ok(Secret::new("a")));
    }

    #[test]
    fn reads_several_webhook_secrets() {
        let one = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let config = read(&[("WEBHOOK_SECRET", &format!("{one}, {one}"))]).expect("valid");
        assert_eq!(config.webhook.secrets.iter().map(|secret| secret.expose().len()).collect::<Vec<_>>(), [24, 24]);
        for wrong in [&one[6..], "whsec_", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw,", "whsec_%%%"] {
            assert_eq!(named(&[("WEBHOOK_SECRET", wrong)]), ["WEBHOOK_SECRET"], "{wrong}");
        }
    }

    #[test]
    fn prints_no_secret() {
        let secret = "do-not-print-me-do-not-print-me-32";
        let config = read(&[("API_KEY", secret), ("ADMIN_API_KEY", secret), ("JWT_SECRET", secret)]).expect("valid");
        let printed = format!("{config:?}");
        assert!(!printed.contains("print-me") && !printed.contains("112"), "{printed}");
        let problems = read(&[("JWT_SECRET", "do-not-print-me")]).expect_err("too short");
        assert!(!problems.contains("print-me"), "{problems}");
    }
}
