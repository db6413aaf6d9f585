//! Shows a trace the way a person wants to read it.

use crate::cli::output::{Ink, Paint};
use crate::sandbox::{Step, Trace};

/// Renders a trace: one line a step, with the time since the request arrived and, on the right,
/// how long the step took.
pub(crate) fn trace(trace: &Trace, paint: Paint) -> String {
    let width = |of: fn(&Step) -> &str| {
        let lengths = trace.steps.iter().map(|step| of(step).chars().count());
        lengths.max().unwrap_or(0)
    };
    let (names, details) = (width(|step| &step.step), width(|step| &step.detail));
    let mut out = String::new();
    for step in &trace.steps {
        let at = format!("{:>9}", format!("+{:.1} ms", step.at_ms));
        let name = format!("{:names$}", step.step);
        let took = step
            .ms
            .map(|ms| format!("{ms:>8.1} ms"))
            .unwrap_or_default();
        // Only the last column may be empty, so no line ends with spaces.
        let detail = match took.is_empty() {
            true => step.detail.clone(),
            false => format!("{:details$}", step.detail),
        };
        let line = format!(
            "  {}  {}  {}{}",
            paint.ink(Ink::Dim, &at),
            paint.ink(Ink::Bold, &name),
            paint.ink(ink(step), &detail),
            paint.ink(Ink::Dim, &took),
        );
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Good and bad ends stand out.
fn ink(step: &Step) -> Ink {
    // `200 done` or `GET … -> 404 not_found`.
    let mut words = step
        .detail
        .split(' ')
        .filter_map(|word| word.parse::<u16>().ok());
    let status = words.next();
    match (step.step.as_str(), status) {
        ("answered" | "upstream", Some(200..=299)) => Ink::Green,
        ("answered" | "upstream", _) => Ink::Red,
        ("handler", _) if step.detail.contains("dead letter") => Ink::Red,
        ("handler", _) if step.detail.contains("tried again") => Ink::Yellow,
        _ => Ink::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(at_ms: f64, step: &str, detail: &str, ms: Option<f64>) -> Step {
        Step {
            at_ms,
            step: step.to_owned(),
            detail: detail.to_owned(),
            ms,
        }
    }

    #[test]
    fn a_trace_is_aligned() {
        let shown = trace(
            &Trace {
                steps: vec![
                    step(0.0, "push received", "POST /push", None),
                    step(0.84, "token verified", "RS256", None),
                    step(
                        4.0,
                        "upstream",
                        "GET chargebee /subscriptions/{id} -> 200",
                        Some(2.26),
                    ),
                    step(12.3, "answered", "200 done", Some(12.31)),
                ],
                ..Trace::default()
            },
            Paint::none(),
        );

        let expected = [
            "    +0.0 ms  push received   POST /push",
            "    +0.8 ms  token verified  RS256",
            "    +4.0 ms  upstream        GET chargebee /subscriptions/{id} -> 200     2.3 ms",
            "   +12.3 ms  answered        200 done                                    12.3 ms",
            "",
        ];
        assert_eq!(shown, expected.join("\n"));
    }
}
