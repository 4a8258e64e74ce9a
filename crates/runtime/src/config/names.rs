//! Names of environment variables: the known ones, those that hold secrets, and suggestions for misspelt ones.

use std::{collections::BTreeSet, ffi::OsString, sync::LazyLock};

/// The variables that may hold a secret. Each can also be read from a file that `NAME_FILE` names.
pub const SECRETS: [&str; 15] = [
    "DATABASE_URL",
    "REDIS_URL",
    "ELASTICSEARCH_URL",
    "PROCESSOR_URL",
    "WEBHOOK_SECRET",
    "CALLBACK_URL",
    "CALLBACK_SECRET",
    "API_KEY",
    "ADMIN_API_KEY",
    "VIEWER_API_KEY",
    "JWT_SECRET",
    "CHAIN_RPC_URL",
    "CHAIN_PRIVATE_KEY",
    "COINGECKO_API_KEY",
    "OTEL_EXPORTER_OTLP_HEADERS",
];

/// Variables that `docker-compose.yml` and Compose itself read from the same `.env`.
const COMPOSE: [&str; 4] = ["BIND", "GRAFANA_PASSWORD", "MILLRACE_IMAGE", "POSTGRES_PASSWORD"];

/// All documented variables, including `NAME_FILE`.
static KNOWN: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    // The only list of all variables. A test compares it with the code.
    let example = include_str!("../../../../.env.example").lines();
    let names = example.filter_map(|line| Some(line.strip_prefix('#').unwrap_or(line).split_once('=')?.0));
    let is_name = |name: &&str| name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    let files = SECRETS.iter().map(|name| format!("{name}_FILE"));
    names.filter(is_name).map(str::to_owned).chain(files).collect()
});

/// A warning about a name in `.env` that is not a variable of Millrace.
pub(super) fn unknown_in_file(name: &str) -> Option<String> {
    if KNOWN.contains(name) || COMPOSE.contains(&name) || name.starts_with("COMPOSE_") {
        return None;
    }
    Some(match closest_variable(name) {
        Some(meant) => format!("{name} is not a variable of Millrace and is ignored; did you mean {meant}?"),
        None => format!("{name} is not a variable of Millrace and is ignored"),
    })
}

/// Warnings about names of the process environment that are close to a variable of Millrace. Other names belong to
/// other programs.
pub(super) fn misspelt_variables(environment: impl Iterator<Item = OsString>) -> Vec<String> {
    /// Shorter names are often close by chance, such as `HOME` and `HOST`.
    const SHORTEST: usize = 7;
    let names = environment.filter_map(|name| name.into_string().ok());
    let names = names.filter(|name| name.len() >= SHORTEST && !KNOWN.contains(name) && !COMPOSE.contains(&&**name));
    let notes = names.filter_map(|name| Some((closest_variable(&name)?, name)));
    notes.map(|(meant, name)| format!("{name} is not a variable of Millrace; did you mean {meant}?")).collect()
}

/// The known variable that is closest to a misspelt name, within an edit distance of 1 or 2.
fn closest_variable(name: &str) -> Option<&'static str> {
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
    fn secrets_are_known_variables() {
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
    fn only_close_names_of_the_environment_are_reported() {
        let names = ["HOME", "HOSTNAME", "PATH", "LOGNAME", "SHELL", "PORTS", "PROCESOR_URL", "DATABASE_URL", "EDITOR"];
        let notes = misspelt_variables(names.iter().map(OsString::from));
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].contains("PROCESSOR_URL"), "{notes:?}");
    }
}
