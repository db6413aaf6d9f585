//! The layer that turns events into lines: Google Cloud Logging's JSON, or text for people.

use std::cell::Cell;
use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::fields::{EventVisitor, SpanFields, Style, is_trace, push_escaped};
use super::writer::Lines;
use crate::clock::SharedClock;

/// What Error Reporting reads: <https://cloud.google.com/error-reporting/docs/formatting-error-messages>.
const REPORTED: &str =
    "type.googleapis.com/google.devtools.clouderrorreporting.v1beta1.ReportedErrorEvent";

/// Names and values that are the same in every line, ready to be written.
#[derive(Debug, Clone)]
pub(super) struct Constants {
    style: Style,
    /// `projects/P/traces/`, or nothing when the project is not known.
    trace_prefix: String,
    labels: String,
    service_context: String,
}

impl Constants {
    pub(super) fn new(style: Style, project: Option<&str>, service: &str, revision: &str) -> Self {
        let quoted = |text: &str| {
            let mut out = String::new();
            push_escaped(&mut out, text, true);
            out
        };
        let (service, revision) = (quoted(service), quoted(revision));
        Self {
            style,
            trace_prefix: project
                .map(|project| format!("projects/{}/traces/", quoted(project)))
                .unwrap_or_default(),
            labels: format!(
                r#","logging.googleapis.com/labels":{{"service":"{service}","revision":"{revision}"}}"#
            ),
            service_context: format!(
                r#","@type":"{REPORTED}","serviceContext":{{"service":"{service}","version":"{revision}"}}"#
            ),
        }
    }

    /// Writes the line that says how many lines are missing.
    pub(super) fn tell_dropped(&self, count: u64, out: &mut Vec<u8>) {
        let line = match self.style {
            Style::Json => format!(
                "{{\"severity\":\"WARNING\",\"message\":\"log lines were dropped, stdout is not read fast enough\",\"lines\":{count}{}}}\n",
                self.labels
            ),
            Style::Pretty { .. } => format!("{count} log lines were dropped\n"),
        };
        out.extend_from_slice(line.as_bytes());
    }
}

/// Formats every event it is shown and hands the line to the writer's thread.
pub(super) struct LineLayer {
    constants: Constants,
    lines: Lines,
    clock: SharedClock,
}

impl LineLayer {
    pub(super) fn new(constants: Constants, lines: Lines, clock: SharedClock) -> Self {
        Self {
            constants,
            lines,
            clock,
        }
    }
}

/// Buffers of one thread. Taken out while in use, so that a panic inside a `Debug` that is being
/// formatted can log its own line.
#[derive(Default)]
struct Buffers {
    line: String,
    message: String,
    fields: String,
    seen: Vec<&'static str>,
    second: Second,
}

thread_local! {
    static BUFFERS: Cell<Buffers> = Cell::default();
}

impl<S> Layer<S> for LineLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, cx: Context<'_, S>) {
        if let Some(span) = cx.span(id) {
            let mut fields = SpanFields::new();
            attributes.record(&mut fields.writer(self.constants.style));
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, cx: Context<'_, S>) {
        if let Some(span) = cx.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<SpanFields>()
        {
            values.record(&mut fields.writer(self.constants.style));
        }
    }

    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        let mut buffers = BUFFERS.take();
        buffers.line.clear();
        buffers.message.clear();
        buffers.fields.clear();
        buffers.seen.clear();
        event.record(&mut EventVisitor {
            style: self.constants.style,
            message: &mut buffers.message,
            fields: &mut buffers.fields,
            seen: &mut buffers.seen,
        });
        let mut trace = Trace::default();
        if let Some(scope) = cx.event_scope(event) {
            for span in scope {
                if let Some(fields) = span.extensions().get::<SpanFields>() {
                    self.inherit(fields, &mut buffers, &mut trace);
                }
            }
        }
        if buffers.message.is_empty() {
            push_escaped(&mut buffers.message, event.metadata().target(), true);
        }
        let since = self
            .clock
            .now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        match self.constants.style {
            Style::Json => self.json(event.metadata(), &mut buffers, &trace, since),
            Style::Pretty { colour } => pretty(event.metadata(), &mut buffers, colour, since),
        }
        self.lines.push(buffers.line.as_bytes());
        BUFFERS.set(buffers);
    }
}

/// Where the line belongs in a trace, from the innermost span that says so.
#[derive(Default)]
struct Trace {
    id: String,
    span: String,
    sampled: String,
}

impl LineLayer {
    /// Adds a span's fields that neither the event nor an inner span has.
    fn inherit(&self, span: &SpanFields, buffers: &mut Buffers, trace: &mut Trace) {
        for (name, text) in span.iter() {
            if is_trace(name) {
                let place = match name {
                    "trace_id" => &mut trace.id,
                    "span_id" => &mut trace.span,
                    _ => &mut trace.sampled,
                };
                if place.is_empty() {
                    place.push_str(text);
                }
                continue;
            }
            // At a terminal one service's requests are told apart by the event's id.
            let noise = name == "request_id" && self.constants.style != Style::Json;
            if !noise && !buffers.seen.contains(&name) {
                buffers.seen.push(name);
                buffers.fields.push_str(text);
            }
        }
    }

    /// Fields: <https://cloud.google.com/logging/docs/structured-logging#structured_logging_special_fields>.
    fn json(&self, meta: &Metadata<'_>, buffers: &mut Buffers, trace: &Trace, since: Duration) {
        let Buffers {
            line,
            message,
            fields,
            second,
            ..
        } = buffers;
        line.push_str("{\"time\":\"");
        line.push_str(second.date_and_time(since.as_secs()));
        // Infallible for a String, here and below.
        write!(line, ".{:06}Z", since.subsec_micros()).ok();
        line.push_str("\",\"severity\":\"");
        line.push_str(match *meta.level() {
            Level::ERROR => "ERROR",
            Level::WARN => "WARNING",
            Level::INFO => "INFO",
            Level::DEBUG | Level::TRACE => "DEBUG",
        });
        line.push_str("\",\"message\":\"");
        line.push_str(message);
        line.push_str("\",\"target\":\"");
        push_escaped(line, meta.target(), true);
        line.push('"');
        line.push_str(fields);
        if !trace.id.is_empty() {
            line.push_str(",\"logging.googleapis.com/trace\":\"");
            line.push_str(&self.constants.trace_prefix);
            line.push_str(&trace.id);
            line.push('"');
            if !trace.span.is_empty() {
                line.push_str(",\"logging.googleapis.com/spanId\":\"");
                line.push_str(&trace.span);
                line.push('"');
            }
            if matches!(trace.sampled.as_str(), "true" | "false") {
                line.push_str(",\"logging.googleapis.com/trace_sampled\":");
                line.push_str(&trace.sampled);
            }
        }
        line.push_str(&self.constants.labels);
        if *meta.level() == Level::ERROR {
            line.push_str(&self.constants.service_context);
            // A file outside this package is named by a path of the machine that built it.
            if let (Some(file), Some(number)) = (meta.file(), meta.line())
                && !file.starts_with(['/', '\\'])
            {
                line.push_str(",\"logging.googleapis.com/sourceLocation\":{\"file\":\"");
                push_escaped(line, file, true);
                write!(line, "\",\"line\":\"{number}\"}}").ok();
            }
        }
        line.push_str("}\n");
    }
}

fn pretty(meta: &Metadata<'_>, buffers: &mut Buffers, colour: bool, since: Duration) {
    let Buffers {
        line,
        message,
        fields,
        second,
        ..
    } = buffers;
    let (paint, level) = match *meta.level() {
        Level::ERROR => ("\x1b[31m", "ERROR"),
        Level::WARN => ("\x1b[33m", " WARN"),
        Level::INFO => ("\x1b[32m", " INFO"),
        Level::DEBUG => ("\x1b[34m", "DEBUG"),
        Level::TRACE => ("\x1b[35m", "TRACE"),
    };
    let clock = second.date_and_time(since.as_secs());
    line.push_str(clock.get(11..).unwrap_or(clock));
    let (paint, plain) = if colour { (paint, "\x1b[0m") } else { ("", "") };
    // Infallible for a String.
    writeln!(
        line,
        ".{:03} {paint}{level}{plain} {message}{fields}",
        since.subsec_millis()
    )
    .ok();
}

/// A second of the calendar and its text, since most lines share it with the one before.
#[derive(Default)]
struct Second {
    unix: u64,
    text: String,
}

impl Second {
    /// Returns `2026-01-31T23:59:59` in UTC.
    fn date_and_time(&mut self, unix: u64) -> &str {
        if self.text.is_empty() || self.unix != unix {
            self.unix = unix;
            self.text.clear();
            let at = i64::try_from(unix)
                .ok()
                .and_then(|unix| time::OffsetDateTime::from_unix_timestamp(unix).ok())
                .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
            let (date, time) = (at.date(), at.time());
            write!(
                self.text,
                "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
                date.year(),
                u8::from(date.month()),
                date.day(),
                time.hour(),
                time.minute(),
                time.second()
            )
            .ok();
        }
        &self.text
    }
}
