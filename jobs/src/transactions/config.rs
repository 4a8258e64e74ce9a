//! What the feature can be told.

use std::time::Duration;

use url::Url;

use crate::config::{EnvReader, Environment};

/// What `PROCESSOR_URL` says instead of a URL where no real processor is meant.
const SIMULATED: &str = "simulated";

/// How transactions are processed.
#[derive(Debug, Clone)]
pub struct Config {
    /// `PROCESSING_DELAY_SECONDS`: how long the simulated external call takes.
    pub delay: Duration,
    /// `PROCESSOR_URL`: the real external call instead; `None` when it is unset or the word `simulated`.
    pub processor: Option<ProcessorConfig>,
}

/// A service that processes transactions.
#[derive(Debug, Clone)]
pub struct ProcessorConfig {
    /// Where transactions are posted.
    pub url: Url,
    /// `PROCESSOR_ATTEMPTS`: calls that may fail before the transaction has.
    pub attempts: u32,
    /// `PROCESSOR_TIMEOUT_SECONDS`: the limit of one call.
    pub timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { delay: Duration::from_secs(30), processor: None }
    }
}

impl Config {
    /// Reads the variables named at the fields.
    pub fn read(vars: &mut EnvReader) -> Self {
        let attempts = vars.number("PROCESSOR_ATTEMPTS", 10, 1..=1000);
        let timeout = vars.seconds("PROCESSOR_TIMEOUT_SECONDS", 30.0, 0.001..=600.0);
        let url = vars.read("PROCESSOR_URL", None, |text| match Url::parse(text) {
            _ if text == SIMULATED => Ok(None),
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(Some(url)),
            _ => Err(format!("must be an HTTP URL, such as https://processor.example.com/charge, or {SIMULATED}")),
        });
        Self {
            delay: vars.seconds("PROCESSING_DELAY_SECONDS", 30.0, 0.0..=86_400.0),
            processor: url.map(|url| ProcessorConfig { url, attempts, timeout }),
        }
    }

    /// Makes sure that the simulation was chosen: in prod it must not settle payments because a variable was forgotten.
    pub fn require_choice(vars: &mut EnvReader, environment: Environment) {
        if environment == Environment::Prod && !vars.is_set("PROCESSOR_URL") {
            let expected = "must be set in prod, such as https://processor.example.com/charge, or to simulated";
            vars.add_error("PROCESSOR_URL", expected);
        }
    }

    /// When a transaction is due after it was recorded: a real processor is asked at once.
    pub(super) fn due_after(&self) -> Duration {
        if self.processor.is_some() { Duration::ZERO } else { self.delay }
    }
}
