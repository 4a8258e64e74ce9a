//! Version of the build, and `--version` and `--help` of programs that take no other argument.

use std::{io::Write, process::ExitCode, sync::LazyLock};

use metrics::{describe_gauge, gauge};

/// The release.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// The release, and the commit if the variable `COMMIT` was set for the build: `0.1.0 (1a2b3c4)`.
pub static VERSION: LazyLock<String> = LazyLock::new(|| match commit() {
    Some(commit) => format!("{RELEASE} ({commit})"),
    None => RELEASE.to_owned(),
});

/// The metric with the release and the commit as labels; its value is always 1.
const BUILD_INFO: &str = "millrace_build_info";

fn commit() -> Option<&'static str> {
    option_env!("COMMIT").filter(|commit| !commit.is_empty())
}

/// Registers the metric and sets it.
pub fn describe() {
    describe_gauge!(BUILD_INFO, "Always 1. The labels are the release and the commit of this process.");
    gauge!(BUILD_INFO, "version" => RELEASE, "commit" => commit().unwrap_or("unknown")).set(1.0);
}

/// Handles the arguments of a program that is configured by variables only. Prints help or version, and refuses every
/// other argument. Returns the exit code if the program must not run.
pub fn handle_arguments(name: &str, about: &str) -> Option<ExitCode> {
    let argument = std::env::args().nth(1)?;
    let printed = match output_for(name, about, &argument) {
        Ok(text) => std::io::stdout().write_all(text.as_bytes()),
        Err(refusal) => {
            let _ = std::io::stderr().write_all(refusal.as_bytes());
            return Some(ExitCode::from(2));
        }
    };
    Some(if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The text to print for an argument.
///
/// # Errors
/// When the argument is unknown. The error is the text for standard error.
fn output_for(name: &str, about: &str, argument: &str) -> Result<String, String> {
    match argument {
        "-h" | "--help" => Ok(format!(
            "{about}\n\nUsage: {name}\n\nIt is configured by environment variables and by the file .env in the working \
             folder; .env.example lists them.\n\nOptions:\n  -h, --help     Print help\n  -V, --version  Print version\n"
        )),
        "-V" | "--version" => Ok(format!("{name} {}\n", *VERSION)),
        _ => Err(format!(
            "error: unexpected argument '{argument}'\n\nUsage: {name}\n\nFor more information, try '--help'.\n"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_and_version_are_printed_and_other_arguments_are_refused() {
        assert!(VERSION.starts_with(RELEASE));
        for argument in ["-V", "--version"] {
            assert_eq!(output_for("api", "Serves.", argument), Ok(format!("api {}\n", *VERSION)));
        }
        let help = output_for("worker", "Runs jobs.", "--help").expect("help");
        assert!(help.starts_with("Runs jobs.\n\nUsage: worker\n"), "{help}");
        let refusal = output_for("api", "Serves.", "--prot").expect_err("a refusal");
        assert!(refusal.starts_with("error: unexpected argument '--prot'\n"), "{refusal}");
    }
}
