//! Configuration of the transactions feature.

use std::time::Duration;

use url::Url;

use super::callbacks;
use runtime::config::{EnvReader, Environment};

/// The value of `PROCESSOR_URL` that selects the simulation instead of a real processor.
const SIMULATED: &str = "simulated";

/// The settings of transaction processing.
#[derive(Debug, Clone)]
pub struct Config {
    /// `PROCESSING_DELAY_SECONDS`: the duration of the simulated external call.
    pub delay: Duration,
    /// `PROCESSOR_URL`: the real external call; `None` if it is unset or `simulated`.
    pub processor: Option<ProcessorConfig>,
    /// `QUEUE_FAIR_BY`: whether senders share the slots of the workers equally. The API gives each job its sender's key, and
    /// workers claim by these keys.
    pub fair_by_sender: bool,
    /// Where settlements are sent.
    pub callbacks: callbacks::config::Config,
}

/// The external service that processes transactions.
#[derive(Debug, Clone)]
pub struct ProcessorConfig {
    /// The URL that transactions are POSTed to.
    pub url: Url,
    /// `PROCESSOR_ATTEMPTS`: the number of failed calls after which the transaction is FAILED.
    pub attempts: u32,
    /// `PROCESSOR_TIMEOUT_SECONDS`: the limit of one call.
    pub timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            delay: Duration::from_secs(30),
            processor: None,
            fair_by_sender: false,
            callbacks: callbacks::config::Config::default(),
        }
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
            fair_by_sender: vars.read("QUEUE_FAIR_BY", false, |text| match text {
                "sender" => Ok(true),
                _ => Err("must be sender, or unset, such as QUEUE_FAIR_BY=sender".into()),
            }),
            callbacks: callbacks::config::Config::read(vars),
        }
    }

    /// Requires an explicit choice in prod: the simulation must not settle payments because a variable was forgotten.
    pub fn require_choice(vars: &mut EnvReader, environment: Environment) {
        if environment == Environment::Prod && !vars.is_set("PROCESSOR_URL") {
            let expected = "must be set in prod, such as https://processor.example.com/charge, or to simulated";
            vars.add_error("PROCESSOR_URL", expected);
        }
    }

    /// The delay between recording and processing. A real processor is called at once.
    pub(super) fn due_after(&self) -> Duration {
        if self.processor.is_some() { Duration::ZERO } else { self.delay }
    }
}
