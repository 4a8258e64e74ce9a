//! Configuration of traces: the standard variables of OpenTelemetry that Millrace supports.

use std::{collections::HashMap, fmt};

use opentelemetry::KeyValue;
use opentelemetry_sdk::trace::Sampler;
use percent_encoding::percent_decode_str;
use reqwest::header::{HeaderName, HeaderValue};
use url::Url;

use crate::config::EnvReader;

/// Where traces are exported to, and which are sampled.
#[derive(Clone)]
pub struct Config {
    pub(super) endpoint: Url,
    pub(super) headers: HashMap<String, String>,
    pub(super) resource: Vec<KeyValue>,
    pub(super) sampler: Sampler,
}

impl Config {
    /// Reads the variables. Returns `None` without `OTEL_EXPORTER_OTLP_ENDPOINT`; the others are checked even then.
    pub fn read(vars: &mut EnvReader) -> Option<Self> {
        let endpoint = vars.read("OTEL_EXPORTER_OTLP_ENDPOINT", None, |text| parse_endpoint(text).map(Some));
        let headers = vars.read("OTEL_EXPORTER_OTLP_HEADERS", HashMap::new(), parse_headers);
        let mut resource = vars.read("OTEL_RESOURCE_ATTRIBUTES", Vec::new(), |text| {
            let pairs = parse_pairs(text);
            let attributes =
                pairs.map(|pairs| pairs.into_iter().map(|(name, value)| KeyValue::new(name, value)).collect());
            attributes.ok_or_else(|| "must be name=value pairs, such as deployment.environment.name=prod".into())
        });
        if let Some(name) = vars.text("OTEL_SERVICE_NAME") {
            resource.push(KeyValue::new("service.name", name));
        }
        let ratio = vars.number("OTEL_TRACES_SAMPLER_ARG", 1.0, 0.0..=1.0);
        let parent = |root: Sampler| Sampler::ParentBased(Box::new(root));
        let sampler = vars.read("OTEL_TRACES_SAMPLER", parent(Sampler::AlwaysOn), |text| match text {
            "always_on" => Ok(Sampler::AlwaysOn),
            "always_off" => Ok(Sampler::AlwaysOff),
            "traceidratio" => Ok(Sampler::TraceIdRatioBased(ratio)),
            "parentbased_always_on" => Ok(parent(Sampler::AlwaysOn)),
            "parentbased_always_off" => Ok(parent(Sampler::AlwaysOff)),
            "parentbased_traceidratio" => Ok(parent(Sampler::TraceIdRatioBased(ratio))),
            _ => Err("must be always_on, always_off, traceidratio, or one of these after parentbased_, such as \
                      OTEL_TRACES_SAMPLER=parentbased_traceidratio"
                .into()),
        });
        endpoint.map(|endpoint| Self { endpoint, headers, resource, sampler })
    }
}

/// Omits the headers, which contain keys, and the URL, which may contain a password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "traces::Config({}, {:?})", self.endpoint.host_str().unwrap_or_default(), self.sampler)
    }
}

/// Parses the base URL of a collector and appends the standard path for traces.
fn parse_endpoint(text: &str) -> Result<Url, String> {
    let expected = "must be an http or https URL, such as OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318";
    let mut url = Url::parse(text).map_err(|_| expected.to_owned())?;
    if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || url.fragment().is_some() {
        return Err(expected.to_owned());
    }
    let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

fn parse_headers(text: &str) -> Result<HashMap<String, String>, String> {
    let valid = |(name, value): &(String, String)| {
        HeaderName::from_bytes(name.as_bytes()).is_ok() && HeaderValue::from_str(value).is_ok()
    };
    parse_pairs(text)
        .filter(|headers| headers.iter().all(valid))
        .map(HashMap::from_iter)
        .ok_or_else(|| "must be name=value pairs, such as OTEL_EXPORTER_OTLP_HEADERS=x-api-key=KEY".to_owned())
}

/// Parses `name=value,name=value`; the values may be percent-encoded.
fn parse_pairs(text: &str) -> Option<Vec<(String, String)>> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        (!name.trim().is_empty()).then(|| (name.trim().to_owned(), value.into_owned()))
    };
    text.split(',').filter(|text| !text.trim().is_empty()).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_standard_variables_and_hides_secrets() {
        let mut vars = EnvReader::from_pairs(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:hidden@collector:4318/base/"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=hid%20den, b=2"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,region=eu"),
            ("OTEL_SERVICE_NAME", "mine"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ]);
        let config = Config::read(&mut vars).expect("an endpoint");
        assert_eq!(config.endpoint.path(), "/base/v1/traces");
        assert_eq!(config.headers.get("x-api-key").map(String::as_str), Some("hid den"));
        assert_eq!(config.resource.last(), Some(&KeyValue::new("service.name", "mine")), "the last value applies");
        assert!(matches!(config.sampler, Sampler::TraceIdRatioBased(ratio) if ratio == 0.25));
        let shown = format!("{config:?}");
        assert!(!shown.contains("hid"), "{shown}");
        assert!(vars.finish(()).is_ok());
    }

    #[test]
    fn reports_wrong_values_even_without_an_endpoint() {
        assert!(Config::read(&mut EnvReader::from_pairs(&[])).is_none());
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://collector"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "no pair"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a b=c"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=b%0Ac"),
            ("OTEL_RESOURCE_ATTRIBUTES", "=x"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
            ("OTEL_TRACES_SAMPLER_ARG", "NaN"),
        ] {
            let mut vars = EnvReader::from_pairs(&[(name, value)]);
            Config::read(&mut vars);
            let problem = vars.finish(()).expect_err(value).to_string();
            assert!(problem.starts_with(&format!("{name}: must be")) && !problem.contains(value), "{problem}");
        }
    }
}
