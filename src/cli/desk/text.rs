//! Words out of the database, made fit for a terminal.

use crate::cli::output::{Ink, Paint};
use crate::store::At;

/// Takes the power out of control characters: an event's type or id may hold any.
pub(super) fn safe(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let hidden = c.is_control() || is_bidi(c);
            let escaped = hidden.then(|| c.escape_unicode());
            let plain = (!hidden).then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// As [`safe`], but lines stay lines: for payloads.
pub(super) fn safe_lines(text: &str) -> String {
    let lines: Vec<String> = text
        .split('\n')
        .map(|line| line.split('\t').map(safe).collect::<Vec<_>>().join("\t"))
        .collect();
    lines.join("\n")
}

/// Characters that turn the direction of what follows.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

/// Cuts text to `most` characters.
pub(super) fn cut(text: &str, most: usize) -> String {
    let text = safe(text);
    match text.char_indices().nth(most) {
        Some(_) => text.chars().take(most - 1).chain(['…']).collect(),
        None => text,
    }
}

/// Writes a time in UTC to the second, with a space in it.
pub(super) fn time(at: At) -> String {
    let mut text = at.to_string();
    text.truncate("2026-11-21T09:38:12".len());
    text.replace('T', " ") + "Z"
}

/// As [`time`], with a dash for never.
pub(super) fn time_or_dash(at: Option<At>) -> String {
    at.map_or_else(|| "–".to_owned(), time)
}

/// A dash for nothing.
pub(super) fn or_dash(text: Option<&String>) -> String {
    text.map_or_else(|| "–".to_owned(), |text| safe(text))
}

/// Names and values below each other; what is not there is left out.
#[derive(Debug, Default)]
pub(super) struct Facts(Vec<(&'static str, String)>);

impl Facts {
    /// Adds a fact.
    pub(super) fn add(&mut self, name: &'static str, value: impl Into<String>) -> &mut Self {
        let value = value.into();
        if !value.is_empty() {
            self.0.push((name, value));
        }
        self
    }

    /// Adds a fact that may be missing.
    pub(super) fn maybe(&mut self, name: &'static str, value: Option<&String>) -> &mut Self {
        if let Some(value) = value {
            self.add(name, safe(value));
        }
        self
    }

    /// Adds from when to when something was, if there is any.
    pub(super) fn span(
        &mut self,
        name: &'static str,
        first: Option<At>,
        last: Option<At>,
    ) -> &mut Self {
        if let (Some(first), Some(last)) = (first, last) {
            self.add(name, format!("{} to {}", time(first), time(last)));
        }
        self
    }

    /// Renders them, each line indented by two spaces.
    pub(super) fn render(&self, paint: Paint) -> String {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut out = String::new();
        for (name, value) in &self.0 {
            let name = paint.ink(Ink::Dim, &format!("{name:width$}"));
            out.push_str(&format!("  {name}  {value}\n"));
        }
        out
    }
}

/// Writes a number of bytes.
pub(super) fn bytes(count: i64) -> String {
    match count {
        ..=999 => format!("{count} B"),
        1_000..=999_999 => format!("{:.1} kB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}

/// `1 event`, `2 events`.
pub(super) fn count(number: i64, one: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {one}s"),
    }
}

/// Indents every line.
pub(super) fn indent(text: &str, by: &str) -> String {
    let lines = text.lines().map(|line| match line {
        "" => "\n".to_owned(),
        line => format!("{by}{line}\n"),
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_publisher_wrote_cannot_move_the_cursor() {
        assert_eq!(
            safe("a\x1b[2Jb\r\n\u{202e}c"),
            "a\\u{1b}[2Jb\\u{d}\\u{a}\\u{202e}c"
        );
        assert_eq!(safe_lines("a\n\tb\x07"), "a\n\tb\\u{7}");
        assert_eq!(safe("ünï 日本"), "ünï 日本");
    }

    #[test]
    fn long_words_are_cut_between_characters() {
        assert_eq!(cut("äöüß", 4), "äöüß");
        assert_eq!(cut("äöüßx", 4), "äöü…");
    }

    #[test]
    fn times_are_short_and_say_their_zone() {
        assert_eq!(time(At(1_795_253_892_123_456)), "2026-11-21 09:38:12Z");
    }
}
