//! Which build this is, and `--version` and `--help` of programs that take no other argument.

use std::{io::Write, process::ExitCode, sync::LazyLock};

use metrics::{describe_gauge, gauge};

/// The release.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// The release, and the commit where the build was given one in the variable `COMMIT`: `0.1.0 (1a2b3c4)`.
pub static VERSION: LazyLock<String> = LazyLock::new(|| match commit() {
    Some(commit) => format!("{RELEASE} ({commit})"),
    None => RELEASE.to_owned(),
});

/// 1, labelled with the release and the commit that runs.
const BUILD: &str = "millrace_build_info";

fn commit() -> Option<&'static str> {
    option_env!("COMMIT").filter(|commit| !commit.is_empty())
}

/// Shows which build this is in the metrics.
pub fn describe() {
    describe_gauge!(BUILD, "1; the labels say which release and which commit of it this process is.");
    gauge!(BUILD, "version" => RELEASE, "commit" => commit().unwrap_or("unknown")).set(1.0);
}

/// Handles the arguments of a program that is configured by variables only: `--help` and `--version` are printed, anything
/// else is refused. Returns the exit code when the program is not to run.
pub fn handle_arguments(name: &str, about: &str) -> Option<ExitCode> {
    let argument = std::env::args().nth(1)?;
    let printed = match reply(name, about, &argument) {
        Ok(text) => std::io::stdout().write_all(text.as_bytes()),
        Err(refusal) => {
            let _ = std::io::stderr().write_all(refusal.as_bytes());
            return Some(ExitCode::from(2));
        }
    };
    Some(if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is printed for an argument, or why it is refused.
fn reply(name: &str, about: &str, argument: &str) -> Result<String, String> {
    match argument {
        "-h" | "--help" => Ok(format!(
            "{about}\n\nUsage: {name}\n\nIt is configured by variables of its environment and of the file .env in this \
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
    fn a_program_without_arguments_says_what_it_is_and_refuses_any() {
        assert!(VERSION.starts_with(RELEASE));
        for argument in ["-V", "--version"] {
            assert_eq!(reply("api", "Serves.", argument), Ok(format!("api {}\n", *VERSION)));
        }
        let help = reply("worker", "Runs jobs.", "--help").expect("help");
        assert!(help.starts_with("Runs jobs.\n\nUsage: worker\n"), "{help}");
        let refusal = reply("api", "Serves.", "--prot").expect_err("a refusal");
        assert!(refusal.starts_with("error: unexpected argument '--prot'\n"), "{refusal}");
    }
}
