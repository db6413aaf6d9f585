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
    /// Not looked at; `found` says why.
    Skipped,
}

/// One line of the report. Holds names of resources, codes and advice, never a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) check: String,
    /// Which of several things of the kind: a subscription, a topic, a trigger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<String>,
    pub(super) state: State,
    pub(super) found: String,
    /// What breaks, or what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
    /// The command that mends it, ready for a shell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) command: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            subject: None,
            state: State::Ok,
            found: found.into(),
            advice: None,
            command: None,
        }
    }

    /// Something that could not be looked at, which is no failure.
    pub(super) fn skipped(check: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            state: State::Skipped,
            ..Self::ok(check, why)
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

    /// Says which thing of its kind was looked at.
    #[must_use]
    pub(super) fn of(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Adds the command that mends it.
    #[must_use]
    pub(super) fn mend(mut self, command: impl Into<String>) -> Self {
        self.command = Some(command.into());
        self
    }

    /// Tells whether nothing was looked at.
    pub(super) fn is_skipped(&self) -> bool {
        self.state == State::Skipped
    }

    /// The check and what it looked at, for people.
    fn title(&self) -> String {
        match &self.subject {
            Some(subject) => format!("{} of {subject}", self.check),
            None => self.check.clone(),
        }
    }
}

/// Writes `text` so that a shell reads it as one word.
pub(super) fn word(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:@=,+%~".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) && !text.starts_with('~') {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
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
                State::Skipped => Cell::new(Ink::Dim, "skipped"),
            };
            table.row(vec![
                finding.title().into(),
                state,
                finding.found.clone().into(),
            ]);
        }
        let mut out = table.render(paint);
        for (i, (checks, advice, command)) in self.advice().iter().enumerate() {
            if i == 0 {
                out.push_str(&format!("\n{}\n", paint.ink(Ink::Bold, "WHAT TO DO")));
            }
            let advice = advice.unwrap_or("to have it looked at");
            out.push_str(&format!("  {}: {advice}\n", checks.join(", ")));
            if let Some(command) = command {
                out.push_str(&format!("    $ {}\n", paint.ink(Ink::Bold, command)));
            }
        }
        let count = |state| self.checks.iter().filter(|f| f.state == state).count();
        let (warnings, failed) = (count(State::Warning), count(State::Failed));
        let s = if warnings == 1 { "" } else { "s" };
        out.push_str(&format!(
            "\n{} ok, {warnings} warning{s}, {failed} failed, {} skipped\n",
            count(State::Ok),
            count(State::Skipped)
        ));
        out
    }

    /// Returns each piece of advice once, with the checks it is for and its command.
    fn advice(&self) -> Vec<Advice<'_>> {
        let mut all: Vec<Advice<'_>> = Vec::new();
        for finding in &self.checks {
            let (advice, command) = (finding.advice.as_deref(), finding.command.as_deref());
            if advice.is_none() && command.is_none() {
                continue;
            }
            match all.iter_mut().find(|it| (it.1, it.2) == (advice, command)) {
                Some((checks, ..)) => checks.push(finding.title()),
                None => all.push((vec![finding.title()], advice, command)),
            }
        }
        all
    }
}

/// For which checks, what to do, and the command that does it.
type Advice<'a> = (Vec<String>, Option<&'a str>, Option<&'a str>);

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
        let counts = "1 ok, 1 warning, 2 failed, 0 skipped\n";
        assert!(text.ends_with(counts), "{text}");
    }

    #[test]
    fn what_could_not_be_looked_at_is_no_failure() {
        let skipped = Finding::skipped("Cloud Run", "no credentials").of("hookyard");
        let report = Report::new(vec![skipped.mend("gcloud auth login")]);

        assert!(report.ok);
        let text = report.render(Paint::none());
        assert!(
            text.contains(
                "  Cloud Run of hookyard: to have it looked at\n    $ gcloud auth login\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_word_is_one_word_for_a_shell() {
        assert_eq!(word("push@p-1.iam.example"), "push@p-1.iam.example");
        assert_eq!(word("a b"), "'a b'");
        assert_eq!(word("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(word(""), "''");
    }
}
