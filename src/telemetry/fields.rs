//! Writes the fields of spans and events, escaped and cut, in the style of the chosen format.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};

/// Longest value in bytes; what is longer is cut. Ids, codes and messages are far below.
const MAX_VALUE_BYTES: usize = 1024;

/// How a field looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// `,"name":value`
    Json,
    /// ` name=value`
    Pretty {
        /// Whether the name is dimmed.
        colour: bool,
    },
}

/// The fields of one span, as they will stand in every line inside it.
#[derive(Debug)]
pub(super) struct SpanFields {
    text: String,
    first: [Entry; INLINE],
    more: Vec<Entry>,
    len: usize,
}

/// Name, and where in the text its value starts and ends.
type Entry = (&'static str, usize, usize);

/// Entries that need no allocation: a span is made for every request.
const INLINE: usize = 6;

impl SpanFields {
    pub(super) fn new() -> Self {
        Self {
            text: String::with_capacity(192),
            first: [("", 0, 0); INLINE],
            more: Vec::new(),
            len: 0,
        }
    }

    /// Returns names with the text that was written for them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let inline = self.first[..self.len.min(INLINE)].iter();
        inline
            .chain(&self.more)
            .map(|&(name, start, end)| (name, &self.text[start..end]))
    }

    fn put(&mut self, entry: Entry) {
        let inline = self.first[..self.len.min(INLINE)].iter_mut();
        let mut all = inline.chain(&mut self.more);
        if let Some(old) = all.find(|old| old.0 == entry.0) {
            *old = entry;
            return;
        }
        match self.first.get_mut(self.len) {
            Some(place) => *place = entry,
            None => self.more.push(entry),
        }
        self.len += 1;
    }

    /// Lends this span's fields to a visitor; what is recorded again takes the place of the old.
    pub(super) fn writer(&mut self, style: Style) -> SpanVisitor<'_> {
        SpanVisitor {
            fields: self,
            style,
        }
    }
}

/// Writes the fields of one event: the message to one place, all others to another.
pub(super) struct EventVisitor<'a> {
    pub(super) style: Style,
    pub(super) message: &'a mut String,
    pub(super) fields: &'a mut String,
    pub(super) seen: &'a mut Vec<&'static str>,
}

pub(super) struct SpanVisitor<'a> {
    fields: &'a mut SpanFields,
    style: Style,
}

impl SpanVisitor<'_> {
    fn write(&mut self, field: &Field, value: Value<'_>) {
        let start = self.fields.text.len();
        if is_trace(field.name()) {
            value.write_raw(&mut self.fields.text);
        } else {
            write_field(&mut self.fields.text, self.style, field.name(), value);
        }
        let end = self.fields.text.len();
        self.fields.put((field.name(), start, end));
    }
}

impl EventVisitor<'_> {
    fn write(&mut self, field: &Field, value: Value<'_>) {
        if field.name() == "message" {
            self.message.clear();
            value.write_escaped(self.message, self.style);
        } else {
            self.seen.push(field.name());
            write_field(self.fields, self.style, field.name(), value);
        }
    }
}

/// Tells whether a span's field is not a field of the line but of its trace.
pub(super) fn is_trace(name: &str) -> bool {
    matches!(name, "trace_id" | "span_id" | "trace_sampled")
}

enum Value<'a> {
    Str(&'a str),
    Debug(&'a dyn fmt::Debug),
    Bool(bool),
    I64(i64),
    U64(u64),
    I128(i128),
    U128(u128),
    F64(f64),
}

impl Value<'_> {
    /// Writes what may stand in a JSON string or at a terminal.
    fn write_escaped(&self, out: &mut String, style: Style) {
        let mut escape = Escape {
            out,
            json: style == Style::Json,
            left: MAX_VALUE_BYTES,
        };
        // The only error is our own, for "long enough".
        match self {
            Self::Str(text) => escape.write_str(text).ok(),
            Self::Debug(value) => write!(escape, "{value:?}").ok(),
            Self::Bool(value) => write!(out, "{value}").ok(),
            Self::I64(value) => write!(out, "{value}").ok(),
            Self::U64(value) => write!(out, "{value}").ok(),
            Self::I128(value) => write!(out, "{value}").ok(),
            Self::U128(value) => write!(out, "{value}").ok(),
            Self::F64(value) => write!(out, "{value}").ok(),
        };
    }

    /// Writes letters, digits and dashes only, at most 64: an id of a trace. A number is written
    /// as the hexadecimal digits of such an id.
    fn write_raw(&self, out: &mut String) {
        match self {
            Self::U64(id) => return push_hex(out, u128::from(*id), 16),
            Self::U128(id) => return push_hex(out, *id, 32),
            _ => {}
        }
        let start = out.len();
        self.write_escaped(out, Style::Json);
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if out.len() - start > 64 || !out[start..].bytes().all(plain) {
            out.truncate(start);
        }
    }

    fn is_text(&self) -> bool {
        match self {
            Self::Str(_) | Self::Debug(_) => true,
            Self::F64(value) => !value.is_finite(), // JSON has no word for it
            // JSON readers keep 64 bits at most.
            Self::I128(_) | Self::U128(_) => true,
            Self::Bool(_) | Self::I64(_) | Self::U64(_) => false,
        }
    }
}

/// Appends so many digits. The formatting machinery would cost several times as much.
fn push_hex(out: &mut String, id: u128, digits: u32) {
    out.extend((0..digits).rev().map(|i| {
        let digit = (id >> (4 * i)) & 0xf;
        char::from_digit(digit as u32, 16).unwrap_or('0')
    }));
}

fn write_field(out: &mut String, style: Style, name: &str, value: Value<'_>) {
    let value = match value {
        // Microseconds are as fine as a duration is ever read.
        Value::F64(ms) if name.ends_with("ms") => Value::F64((ms * 1000.0).round() / 1000.0),
        value => value,
    };
    match style {
        Style::Json => {
            out.push_str(",\"");
            push_name(out, name);
            out.push_str("\":");
            if value.is_text() {
                out.push('"');
                value.write_escaped(out, style);
                out.push('"');
            } else {
                value.write_escaped(out, style);
            }
        }
        Style::Pretty { colour } => {
            out.push_str(if colour { " \x1b[2m" } else { " " });
            push_name(out, name);
            out.push_str(if colour { "=\x1b[0m" } else { "=" });
            value.write_escaped(out, style);
        }
    }
}

/// Writes a name that is a constant of some program: `event.r#type` as `event.type`, and a name
/// the line itself uses with a dash under it, so that no field can pass for it.
fn push_name(out: &mut String, name: &str) {
    if matches!(
        name,
        "time" | "severity" | "target" | "@type" | "serviceContext"
    ) {
        out.push('_');
    }
    // Searching for one byte is much cheaper than for two, and few names have it.
    let raw = name.as_bytes().contains(&b'#');
    match raw.then(|| name.split_once("r#")).flatten() {
        Some((before, after)) if before.is_empty() || before.ends_with('.') => {
            out.push_str(before);
            out.push_str(after);
        }
        _ => out.push_str(name),
    }
}

/// Writes text without anything that could end the line, leave the string or move a cursor, and
/// stops when it is long enough.
struct Escape<'a> {
    out: &'a mut String,
    json: bool,
    left: usize,
}

impl Write for Escape<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let whole = text.len() <= self.left;
        let text = &text[..text.floor_char_boundary(self.left)];
        self.left -= text.len();
        push_escaped(self.out, text, self.json);
        if whole {
            Ok(())
        } else {
            self.left = 0;
            self.out.push('…');
            Err(fmt::Error)
        }
    }
}

/// Appends `text` with control characters, and for JSON quotes and backslashes, escaped.
pub(super) fn push_escaped(out: &mut String, text: &str, json: bool) {
    let odd = |b: u8| !(b' '..0x7f).contains(&b) | (json & ((b == b'"') | (b == b'\\')));
    // No early end, so that many bytes are looked at together.
    if !text.bytes().fold(false, |found, b| found | odd(b)) {
        out.push_str(text);
        return;
    }
    for c in text.chars() {
        match c {
            '"' | '\\' if json => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Line separators and marks that turn the direction of what follows.
            c if c.is_control()
                || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                // Infallible for a String.
                write!(out, "\\u{:04x}", c as u32).ok();
            }
            c => out.push(c),
        }
    }
}

macro_rules! visit {
    ($visitor:ident) => {
        impl Visit for $visitor<'_> {
            fn record_str(&mut self, field: &Field, value: &str) {
                self.write(field, Value::Str(value));
            }

            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                self.write(field, Value::Debug(value));
            }

            fn record_bool(&mut self, field: &Field, value: bool) {
                self.write(field, Value::Bool(value));
            }

            fn record_i64(&mut self, field: &Field, value: i64) {
                self.write(field, Value::I64(value));
            }

            fn record_u64(&mut self, field: &Field, value: u64) {
                self.write(field, Value::U64(value));
            }

            fn record_i128(&mut self, field: &Field, value: i128) {
                self.write(field, Value::I128(value));
            }

            fn record_u128(&mut self, field: &Field, value: u128) {
                self.write(field, Value::U128(value));
            }

            fn record_f64(&mut self, field: &Field, value: f64) {
                self.write(field, Value::F64(value));
            }
        }
    };
}

visit!(EventVisitor);
visit!(SpanVisitor);
