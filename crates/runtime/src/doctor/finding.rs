//! What a check finds.

use std::time::Duration;

use serde::Serialize;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing, and no reason to act.
    Note,
    /// It will become an error, or makes work slower.
    Warning,
    /// Work fails, or can be lost.
    Error,
}

/// One thing that a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Names the kind of finding, such as `index-missing`.
    pub id: &'static str,
    pub severity: Severity,
    /// A sentence with the figure.
    pub text: String,
    /// SQL or a command that corrects it, or what to do.
    pub fix: String,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    pub name: &'static str,
    /// What it looks at.
    pub about: &'static str,
    /// What was measured.
    pub facts: Vec<String>,
    /// Worst first.
    pub findings: Vec<Finding>,
    /// What the role may not see.
    pub hidden: Vec<String>,
    /// Why there is no result.
    pub not_known: Option<String>,
}

impl CheckReport {
    /// The report of a check that has ended.
    pub(super) fn found(name: &'static str, about: &'static str, outcome: Outcome) -> Self {
        let Outcome { facts, mut findings, hidden } = outcome;
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        Self { name, about, facts, findings, hidden, not_known: None }
    }

    /// The report of a check without a result.
    pub(super) fn not_known(name: &'static str, about: &'static str, reason: String) -> Self {
        Self { name, about, facts: Vec::new(), findings: Vec::new(), hidden: Vec::new(), not_known: Some(reason) }
    }
}

/// From when on something is a finding.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The age of a snapshot. Twelve times as much is an error.
    pub snapshot: Duration,
    /// The age of the snapshot of a replication slot or a standby, in transactions.
    pub snapshot_transactions: i64,
    /// How long a statement waits for a lock. Thirty times as much is an error.
    pub lock_wait: Duration,
    /// Bytes of log that an unused replication slot keeps. Sixteen times as much is a finding for one in use.
    pub slot_bytes: f64,
    /// Dead rows of a table, if they are also twice as many as autovacuum waits for.
    pub dead_rows: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            snapshot: Duration::from_secs(300),
            snapshot_transactions: 1_000_000,
            lock_wait: Duration::from_secs(1),
            slot_bytes: 64.0 * 1024.0 * 1024.0,
            dead_rows: 10_000.0,
        }
    }
}

/// What a check found, while it runs.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub facts: Vec<String>,
    pub findings: Vec<Finding>,
    pub hidden: Vec<String>,
}

impl Outcome {
    /// Adds what was measured.
    pub(super) fn fact(&mut self, text: impl Into<String>) {
        self.facts.push(text.into());
    }

    /// Adds what the role may not see.
    pub(super) fn hide(&mut self, text: impl Into<String>) {
        self.hidden.push(text.into());
    }

    /// Adds a finding.
    pub(super) fn find(
        &mut self,
        severity: Severity,
        id: &'static str,
        text: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.findings.push(Finding { id, severity, text: text.into(), fix: fix.into() });
    }

    /// Adds an error.
    pub(super) fn error(&mut self, id: &'static str, text: impl Into<String>, fix: impl Into<String>) {
        self.find(Severity::Error, id, text, fix);
    }

    /// Adds a warning.
    pub(super) fn warn(&mut self, id: &'static str, text: impl Into<String>, fix: impl Into<String>) {
        self.find(Severity::Warning, id, text, fix);
    }
}
