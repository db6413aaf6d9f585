//! What commands print: tables and colours on stdout, failures on stderr.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use crate::error::Error;
use crate::store;

/// Colours, or nothing when stdout is no terminal or `NO_COLOR` is set (<https://no-color.org>).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint(bool);

/// How a word is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ink {
    /// As everything else.
    Plain,
    /// A heading.
    Bold,
    /// Of little weight.
    Dim,
    /// Good.
    Green,
    /// Worth a look.
    Yellow,
    /// Bad.
    Red,
}

impl Paint {
    /// Looks at stdout and the environment.
    #[expect(
        clippy::disallowed_methods,
        reason = "NO_COLOR counts also when the configuration cannot be read"
    )]
    pub(crate) fn of_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(std::io::stdout().is_terminal() && !unwanted)
    }

    /// Never paints.
    pub(crate) const fn none() -> Self {
        Self(false)
    }

    /// Returns `text` in `ink`.
    pub(crate) fn ink(self, ink: Ink, text: &str) -> String {
        let code = match ink {
            Ink::Plain => return text.to_owned(),
            _ if !self.0 => return text.to_owned(),
            Ink::Bold => "1",
            Ink::Dim => "2",
            Ink::Green => "32",
            Ink::Yellow => "33",
            Ink::Red => "31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// One field of a table.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    ink: Ink,
}

impl Cell {
    /// A painted field.
    pub(crate) fn new(ink: Ink, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ink,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(Ink::Plain, text)
    }
}

/// Rows under a heading, each column as wide as its widest field.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Starts a table with the names of its columns.
    pub(crate) fn new(head: &[&str]) -> Self {
        let head = head
            .iter()
            .map(|name| Cell::new(Ink::Bold, *name))
            .collect();
        Self { rows: vec![head] }
    }

    /// Adds a row; a field may have several lines.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Renders the table; every line ends with a line feed and none with spaces.
    pub(crate) fn render(&self, paint: Paint) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let fields = self.rows.iter().filter_map(|row| row.get(column));
            let lines = fields.flat_map(|cell| cell.text.lines());
            lines.map(|line| line.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let height = row.iter().map(|cell| cell.text.lines().count()).max();
            for line in 0..height.unwrap_or(0) {
                let mut pad = 0;
                for (cell, width) in row.iter().zip(&widths) {
                    let text = cell.text.lines().nth(line).unwrap_or("");
                    if !text.is_empty() {
                        out.push_str(&" ".repeat(pad));
                        out.push_str(&paint.ink(cell.ink, text));
                        pad = 0;
                    }
                    pad += width - text.chars().count() + 2;
                }
                out.push('\n');
            }
        }
        out
    }
}

/// Says what is wrong with the database, and what to do about it.
pub(crate) fn database_trouble(cause: &Error) -> String {
    match store::advice(cause.code().as_str()) {
        None if !matches!(cause, Error::Unavailable { .. }) => cause.to_string(),
        _ => format!("{cause}: {}", database_advice(cause)),
    }
}

/// Says what to do about the database.
pub(crate) fn database_advice(cause: &Error) -> &'static str {
    store::advice(cause.code().as_str()).unwrap_or("try again")
}

/// Prints `text` to stdout and ends it with a line feed. A closed pipe (`| head`) is no failure.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    // Nobody reads any longer; there is no one to tell.
    write!(out, "{text}{end}").and_then(|()| out.flush()).ok();
}

/// Says on stderr what the caller may not have meant.
#[cfg(feature = "sandbox")]
pub(crate) fn warn(what: &str) {
    writeln!(std::io::stderr().lock(), "warning: {what}").ok();
}

/// Says on stderr why the command ends, and returns the exit code 1.
pub(crate) fn fail(why: &str) -> ExitCode {
    writeln!(std::io::stderr().lock(), "hookyard: {why}").ok();
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_field() {
        let mut table = Table::new(&["name", "what"]);
        table.row(vec!["a".into(), "first\nsecond".into(), "x".into()]);
        table.row(vec!["longer name".into(), "é".into(), "y".into()]);

        let expected = "name         what\n\
                        a            first   x\n             second\n\
                        longer name  é       y\n";
        assert_eq!(table.render(Paint::none()), expected);
    }

    #[test]
    fn paint_does_not_move_columns() {
        let mut table = Table::new(&["a", "b"]);
        table.row(vec![Cell::new(Ink::Red, "failed"), "x".into()]);

        let painted = table.render(Paint(true));
        let plain = ["\x1b[31m", "\x1b[1m", "\x1b[0m"]
            .iter()
            .fold(painted, |text, code| text.replace(code, ""));
        assert_eq!(plain, table.render(Paint::none()));
    }
}
