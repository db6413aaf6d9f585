//! What commands print: tables and colours on stdout, failures on stderr.

use std::io::{IsTerminal, Write};
use std::ops::Range;
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

/// How wide a table may be; some are indented by two.
const WIDTH: usize = 98;

/// Texts are not broken into columns that are narrower.
const NARROW: usize = 24;

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

/// Rows under a heading, each column as wide as its widest field, if that fits a terminal.
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
    ///
    /// One that is wider than [`WIDTH`] has its texts broken at spaces; where that is not enough
    /// each row goes on, indented, in a further line. Words, which may be ids, stay whole.
    pub(crate) fn render(&self, paint: Paint) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let natural: Vec<usize> = (0..columns).map(|n| self.width(n, str::lines)).collect();
        let narrowed = self.narrowed(&natural);
        let widths = narrowed.unwrap_or_else(|| natural.iter().map(|n| *n.min(&WIDTH)).collect());
        let parts = parts(&widths);
        let mut out = String::new();
        for row in &self.rows {
            for (indent, part) in &parts {
                let cells: Vec<_> = (part.clone())
                    .filter_map(|n| row.get(n).map(|cell| (cell, widths[n])))
                    .map(|(cell, width)| (cell.ink, broken(&cell.text, width), width))
                    .collect();
                line_up(&cells, *indent, paint, &mut out);
            }
        }
        out
    }

    /// The widest piece of a column's fields.
    fn width<'a, I>(&'a self, column: usize, pieces: impl Fn(&'a str) -> I) -> usize
    where
        I: Iterator<Item = &'a str>,
    {
        let fields = self.rows.iter().filter_map(|row| row.get(column));
        let pieces = fields.flat_map(|cell| pieces(&cell.text));
        pieces.map(|piece| piece.chars().count()).max().unwrap_or(0)
    }

    /// Takes from the widest texts until the table fits, if it comes to fit.
    fn narrowed(&self, natural: &[usize]) -> Option<Vec<usize>> {
        let mut widths = natural.to_vec();
        let least: Vec<usize> = (0..widths.len())
            .map(|n| self.width(n, str::split_whitespace).max(NARROW))
            .collect();
        while total(&widths) > WIDTH {
            let yields = |n: &usize| widths[*n] > least[*n];
            let widest = (0..widths.len())
                .filter(yields)
                .max_by_key(|n| widths[*n])?;
            widths[widest] -= 1;
        }
        Some(widths)
    }
}

fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)
}

/// Divides columns into lines that fit, each with its indentation.
fn parts(widths: &[usize]) -> Vec<(usize, Range<usize>)> {
    let mut parts = Vec::new();
    let mut from = 0;
    for to in 1..=widths.len() {
        let indent = if from == 0 { 0 } else { 2 };
        let next = widths.get(from..=to);
        if next.is_none_or(|next| indent + total(next) > WIDTH) {
            parts.push((indent, from..to));
            from = to;
        }
    }
    parts
}

/// Breaks a text at spaces; a word that is longer stays whole.
fn broken(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.chars().count() <= width {
            lines.push(line.to_owned());
            continue;
        }
        let mut piece = String::new();
        for word in line.split_whitespace() {
            let long = piece.chars().count() + 1 + word.chars().count() > width;
            if long && !piece.is_empty() {
                lines.push(std::mem::take(&mut piece));
            }
            if !piece.is_empty() {
                piece.push(' ');
            }
            piece.push_str(word);
        }
        lines.push(piece);
    }
    lines
}

fn line_up(cells: &[(Ink, Vec<String>, usize)], indent: usize, paint: Paint, out: &mut String) {
    let height = cells.iter().map(|(_, lines, _)| lines.len()).max();
    for line in 0..height.unwrap_or(0) {
        let mut pad = indent;
        for (ink, lines, width) in cells {
            let text = lines.get(line).map_or("", String::as_str);
            if !text.is_empty() {
                out.push_str(&" ".repeat(pad));
                out.push_str(&paint.ink(*ink, text));
                pad = 0;
            }
            pad += width.saturating_sub(text.chars().count()) + 2;
        }
        out.push('\n');
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
    fn a_table_that_is_too_wide_has_its_texts_broken_at_spaces() {
        let mut table = Table::new(&["ID", "WHY"]);
        let id = "4fc2213f-2f29-5ae5-99e5-7262900b0aea";
        table.row(vec![
            id.into(),
            "because of this and that ".repeat(4).into(),
        ]);

        let text = table.render(Paint::none());

        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        let under = format!("{}this and", " ".repeat(id.len() + 2));
        assert!(lines[2].starts_with(&under), "{text}");
        assert!(
            lines.iter().all(|line| line.chars().count() <= WIDTH),
            "{text}"
        );
    }

    #[test]
    fn a_table_of_many_columns_goes_on_in_a_second_line() {
        let id = "4fc2213f-2f29-5ae5-99e5-7262900b0aea";
        let mut table = Table::new(&["ID", "AGAIN", "TYPE", "SOURCE"]);
        table.row(vec![
            id.into(),
            id.into(),
            "a.rather.long.event_type".into(),
            "push".into(),
        ]);

        let expected = format!(
            "ID                                    AGAIN\n  \
             TYPE                      SOURCE\n{id}  {id}\n  \
             a.rather.long.event_type  push\n"
        );
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
