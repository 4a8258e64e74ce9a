//! `millrace doctor`: examines the database.

use anyhow::Result;
use clap::Args;
use runtime::doctor::{CheckReport, Finding, Limits, Report, Severity, examine};

use crate::{
    operator::configuration,
    output::{Screen, Style, format_time, one_line, print_value},
};

#[derive(Args)]
#[command(after_help = "\
It reads catalogues and statistics of PostgreSQL, so its cost does not depend on the number of jobs. It changes nothing,
opens at most four sessions, and measures a notification. Each check has a limit of 1 s; one that takes longer is \"not
known now\", and the others go on. Each finding has the SQL or the command that corrects it: read it before you run it.

It works with every schema, also before `millrace migrate`. With pg_read_all_stats the role sees what all roles run;
without it the report says what is hidden.

Exits with 0 if all is well, with 1 for warnings or checks without a result, and with 2 for errors.

Examples:
  millrace doctor
  millrace doctor --all                      with what was measured by the checks that found nothing
  millrace doctor --json | jq -r '.checks[].findings[] | [.severity, .id, .fix] | @tsv'")]
pub(crate) struct Arguments {
    /// Also print what was measured by checks that found nothing
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs `millrace doctor`. Returns the exit status.
///
/// # Errors
/// When the configuration is wrong, or the output cannot be written.
pub(crate) async fn program(Arguments { all, json }: Arguments) -> Result<u8> {
    let (_, database) = configuration()?;
    let report = examine(&database, &Limits::default()).await;
    print_value(json, &report, || text(&report, all, Screen::of_stdout()))?;
    Ok(match report.worst() {
        None | Some(Severity::Note) => 0,
        Some(Severity::Warning) => 1,
        Some(Severity::Error) => 2,
    })
}

/// The verdict, then each check.
fn text(report: &Report, all: bool, screen: Screen) -> String {
    let count = |severity, noun: &str| match report.count(severity) {
        0 => None,
        1 => Some(format!("1 {noun}")),
        count => Some(format!("{count} {noun}s")),
    };
    let unknown = report.checks.iter().filter(|check| check.not_known.is_some()).count();
    let unknown = (unknown > 0).then(|| format!("{unknown} not known"));
    let parts: Vec<String> =
        [count(Severity::Error, "error"), count(Severity::Warning, "warning"), unknown].into_iter().flatten().collect();
    let (verdict, style) = match report.worst() {
        None | Some(Severity::Note) => ("Healthy".to_owned(), Style::Good),
        Some(Severity::Warning) => (parts.join(", "), Style::Warning),
        Some(Severity::Error) => (parts.join(", "), Style::Bad),
    };
    let mut text = format!(
        "{}  ({}, {} checks in {:.0} ms, {})\n",
        style.paint(&verdict, screen),
        format_time(report.at),
        report.checks.len(),
        report.seconds * 1000.0,
        one_line(&report.database, 200)
    );
    for check in &report.checks {
        text.push_str(&check_text(check, all, screen));
    }
    text
}

fn check_text(check: &CheckReport, all: bool, screen: Screen) -> String {
    let worst = check.findings.iter().map(|finding| finding.severity).max();
    let mark = match (&check.not_known, worst) {
        (Some(_), _) => Style::Warning.paint("?", screen),
        (None, Some(Severity::Error)) => Style::Bad.paint("✘", screen),
        (None, Some(Severity::Warning)) => Style::Warning.paint("!", screen),
        (None, _) => Style::Good.paint("✔", screen),
    };
    let mut text = format!("  {mark} {}: {}\n", check.name, Style::Faint.paint(check.about, screen));
    let mut line =
        |line: &str, style: Style| text.push_str(&format!("      {}\n", style.paint(&one_line(line, 600), screen)));
    if let Some(reason) = &check.not_known {
        line(reason, Style::Warning);
    }
    for Finding { id, severity, text, fix } in &check.findings {
        let style = match severity {
            Severity::Error => Style::Bad,
            Severity::Warning => Style::Warning,
            Severity::Note => Style::Plain,
        };
        line(&format!("{id}: {text}"), style);
        line(&format!("  fix: {fix}"), Style::Faint);
    }
    for hidden in &check.hidden {
        line(&format!("hidden from this role: {hidden}"), Style::Plain);
    }
    if all || worst.is_some() {
        check.facts.iter().for_each(|fact| line(fact, Style::Faint));
    }
    text
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_finding_is_printed_with_its_fix_and_facts_only_on_request() {
        let check = |name, facts: &[&str], findings: &[Finding], not_known: Option<&str>| CheckReport {
            name,
            about: "what it is about",
            facts: facts.iter().map(|fact| (*fact).to_owned()).collect(),
            findings: findings.to_vec(),
            hidden: Vec::new(),
            not_known: not_known.map(str::to_owned),
        };
        let finding = Finding {
            id: "index-missing",
            severity: Severity::Error,
            text: "the index x is missing".into(),
            fix: "CREATE INDEX x;".into(),
        };
        let report = Report {
            at: datetime!(2026-11-28 12:00 UTC),
            seconds: 0.25,
            database: "postgres://u@h/d".into(),
            checks: vec![
                check("clock", &["the clocks differ by 1 ms"], &[], None),
                check("indexes", &["19 compared"], &[finding], None),
                check("size", &[], &[], Some("not known now (1 s)")),
            ],
        };
        let printed = text(&report, false, Screen::PLAIN);
        let expected = "1 error, 1 not known  (2026-11-28T12:00:00Z, 3 checks in 250 ms, postgres://u@h/d)
  ✔ clock: what it is about
  ✘ indexes: what it is about
      index-missing: the index x is missing
        fix: CREATE INDEX x;
      19 compared
  ? size: what it is about
      not known now (1 s)
";
        assert_eq!(printed, expected);
        assert!(text(&report, true, Screen::PLAIN).contains("the clocks differ by 1 ms"));
    }
}
