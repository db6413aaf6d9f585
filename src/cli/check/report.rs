//! What a check found, as a table for people and as JSON for scripts.

use serde::Serialize;

use crate::cli::output::{Cell, Ink, Paint, Table};

/// How one check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Ok,
    Warning,
    Failed,
}

/// One line of the report. Holds names, codes and advice, never a configured value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) check: String,
    pub(super) state: State,
    pub(super) found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            state: State::Ok,
            found: found.into(),
            advice: None,
        }
    }

    pub(super) fn warning(
        check: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            state: State::Warning,
            advice: Some(advice.into()),
            ..Self::ok(check, found)
        }
    }

    pub(super) fn failed(
        check: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            state: State::Failed,
            ..Self::warning(check, found, advice)
        }
    }
}

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// No check failed.
    pub(super) ok: bool,
    pub(super) checks: Vec<Finding>,
}

impl Report {
    pub(super) fn new(checks: Vec<Finding>) -> Self {
        let ok = checks.iter().all(|finding| finding.state != State::Failed);
        Self { ok, checks }
    }

    /// Renders the table, what to do, and a last line with the counts.
    pub(super) fn render(&self, paint: Paint) -> String {
        let mut table = Table::new(&["CHECK", "STATE", "FOUND"]);
        for finding in &self.checks {
            let state = match finding.state {
                State::Ok => Cell::new(Ink::Green, "ok"),
                State::Warning => Cell::new(Ink::Yellow, "warning"),
                State::Failed => Cell::new(Ink::Red, "failed"),
            };
            table.row(vec![
                finding.check.clone().into(),
                state,
                finding.found.clone().into(),
            ]);
        }
        let mut out = table.render(paint);
        for (i, (checks, advice)) in self.advice().iter().enumerate() {
            if i == 0 {
                out.push_str(&format!("\n{}\n", paint.ink(Ink::Bold, "WHAT TO DO")));
            }
            out.push_str(&format!("  {}: {advice}\n", checks.join(", ")));
        }
        let count = |state| self.checks.iter().filter(|f| f.state == state).count();
        let (warnings, failed) = (count(State::Warning), count(State::Failed));
        let s = if warnings == 1 { "" } else { "s" };
        out.push_str(&format!(
            "\n{} ok, {warnings} warning{s}, {failed} failed\n",
            count(State::Ok)
        ));
        out
    }

    /// Returns each piece of advice once, with the checks it is for.
    fn advice(&self) -> Vec<(Vec<&str>, &str)> {
        let mut all: Vec<(Vec<&str>, &str)> = Vec::new();
        for finding in &self.checks {
            let Some(advice) = finding.advice.as_deref() else {
                continue;
            };
            match all.iter_mut().find(|(_, given)| *given == advice) {
                Some((checks, _)) => checks.push(&finding.check),
                None => all.push((vec![&finding.check], advice)),
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_fails_the_report_and_a_warning_does_not() {
        let ok = Finding::ok("hasura", "reachable");
        let warning = Finding::warning("admin", "ADMIN_TOKEN is not set", "set it");
        let failed = Finding::failed("chargebee", "timeout", "check CHARGEBEE_URL");

        assert!(Report::new(vec![ok.clone(), warning.clone()]).ok);
        let again = Finding::failed("site", "timeout", "check CHARGEBEE_URL");
        let report = Report::new(vec![ok, warning, failed, again]);
        assert!(!report.ok);
        let text = report.render(Paint::none());
        let advice = "WHAT TO DO\n  admin: set it\n  chargebee, site: check CHARGEBEE_URL\n";
        assert!(text.contains(advice), "{text}");
        assert!(text.ends_with("1 ok, 1 warning, 2 failed\n"), "{text}");
    }
}
