//! The names of variables: which ones exist, which of them hold secrets, and what a misspelt one may have meant.

use std::{collections::BTreeSet, ffi::OsString, sync::LazyLock};

/// Each variable that can hold a secret. It can be read from a file instead, which `NAME_FILE` names.
pub const SECRETS: [&str; 12] = [
    "DATABASE_URL",
    "REDIS_URL",
    "ELASTICSEARCH_URL",
    "PROCESSOR_URL",
    "WEBHOOK_SECRET",
    "API_KEY",
    "ADMIN_API_KEY",
    "JWT_SECRET",
    "CHAIN_RPC_URL",
    "CHAIN_PRIVATE_KEY",
    "COINGECKO_API_KEY",
    "OTEL_EXPORTER_OTLP_HEADERS",
];

/// What `docker-compose.yml` reads from the same `.env`, and Compose itself.
const COMPOSE: [&str; 4] = ["BIND", "GRAFANA_PASSWORD", "MILLRACE_IMAGE", "POSTGRES_PASSWORD"];

/// Every variable that the documentation names, `NAME_FILE` included.
static KNOWN: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    // The one list of all variables; a test compares it with the code.
    let example = include_str!("../../../.env.example").lines();
    let names = example.filter_map(|line| Some(line.strip_prefix('#').unwrap_or(line).split_once('=')?.0));
    let is_name = |name: &&str| name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    let files = SECRETS.iter().map(|name| format!("{name}_FILE"));
    names.filter(is_name).map(str::to_owned).chain(files).collect()
});

/// What to say about a name in `.env` that is not a variable of ours.
pub(super) fn unknown_in_file(name: &str) -> Option<String> {
    if KNOWN.contains(name) || COMPOSE.contains(&name) || name.starts_with("COMPOSE_") {
        return None;
    }
    Some(match meant(name) {
        Some(meant) => format!("{name} is not a variable of Millrace and is ignored; did you mean {meant}?"),
        None => format!("{name} is not a variable of Millrace and is ignored"),
    })
}

/// What to say about names of the process environment that are close to one of ours. Most of the others there belong
/// to other programs.
pub(super) fn misspelt(environment: impl Iterator<Item = OsString>) -> Vec<String> {
    /// Shorter names are close to each other by chance, such as `HOME` to `HOST`.
    const SHORTEST: usize = 7;
    let names = environment.filter_map(|name| name.into_string().ok());
    let names = names.filter(|name| name.len() >= SHORTEST && !KNOWN.contains(name) && !COMPOSE.contains(&&**name));
    let notes = names.filter_map(|name| Some((meant(&name)?, name)));
    notes.map(|(meant, name)| format!("{name} is not a variable of Millrace; did you mean {meant}?")).collect()
}

/// The variable that this name may be a misspelling of.
fn meant(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_uppercase().replace('-', "_");
    let name = name.strip_prefix("MILLRACE_").unwrap_or(&name);
    let most = if name.len() < 8 { 1 } else { 2 };
    let distances = KNOWN.iter().map(|known| (strsim::damerau_levenshtein(name, known), known));
    let (distance, closest) = distances.min()?;
    (distance <= most).then_some(closest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_variables() {
        for name in SECRETS {
            assert!(KNOWN.contains(name), "{name} is not in .env.example");
        }
        assert!(KNOWN.len() > 50 && KNOWN.contains("PORT") && KNOWN.contains("API_KEY_FILE"), "{KNOWN:?}");
    }

    #[test]
    fn a_misspelt_name_gets_a_suggestion() {
        for (name, meant) in [
            ("PROCESOR_URL", Some("PROCESSOR_URL")),
            ("DATABASE_URI", Some("DATABASE_URL")),
            ("database_url", Some("DATABASE_URL")),
            ("MILLRACE_PORT", Some("PORT")),
            ("PROT", Some("PORT")),
            ("API-KEY", Some("API_KEY")),
            ("API_KEY_FIEL", Some("API_KEY_FILE")),
            ("PORT_FILE", None),
            ("LOG_LEVEL", None),
        ] {
            let note = unknown_in_file(name).expect(name);
            assert!(note.starts_with(&format!("{name} is not a variable of Millrace")), "{note}");
            match meant {
                Some(meant) => assert!(note.ends_with(&format!("did you mean {meant}?")), "{note}"),
                None => assert!(note.ends_with("ignored"), "{note}"),
            }
        }
        for known in ["PORT", "RUST_LOG", "ADMIN_API_KEY_FILE", "POSTGRES_PASSWORD", "COMPOSE_PROFILES"] {
            assert_eq!(unknown_in_file(known), None);
        }
    }

    #[test]
    fn of_the_environment_only_close_names_are_mentioned() {
        let names = ["HOME", "HOSTNAME", "PATH", "LOGNAME", "SHELL", "PORTS", "PROCESOR_URL", "DATABASE_URL", "EDITOR"];
        let notes = misspelt(names.iter().map(OsString::from));
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].contains("PROCESSOR_URL"), "{notes:?}");
    }
}
