//! `hookyard explain`: what happened to an id, as a tree.

use std::process::ExitCode;

use clap::Args;

use super::text::{cut, safe, time, time_or_dash};
use super::{Form, looked_at, open, show, told};
use crate::cli::output::{Cell, Ink, Paint, Table};
use crate::cli::progress::short;
use crate::desk::{DeadLetter, Emission, EventStory, Explanation, Kept, Repeat, Run};
use crate::error::BoxError;

/// What `hookyard explain` takes.
#[derive(Args)]
pub(in super::super) struct ExplainArgs {
    /// Any id: of an event, a Pub/Sub message, a dead letter, Hasura's, a correlation or a trace.
    id: String,
    /// Print ordering keys as well: handlers make them of rows. Goes into the audit.
    #[arg(long)]
    payload: bool,
    #[command(flatten)]
    form: Form,
}

/// Prints the tree.
///
/// # Errors
/// When nothing is known under the id, or the database is away.
pub(in super::super) async fn explain(args: &ExplainArgs) -> Result<ExitCode, BoxError> {
    let desk = open()?;
    let found = match args.payload {
        true => desk.explain_with_keys(&args.id, &looked_at()).await,
        false => desk.explain(&args.id).await,
    };
    show(args.form, &found.map_err(told)?, for_people)
}

/// One line of the tree with what hangs on it.
struct Node {
    line: String,
    below: Vec<Node>,
}

impl Node {
    fn leaf(line: impl Into<String>) -> Self {
        Self {
            line: line.into(),
            below: Vec::new(),
        }
    }
}

fn for_people(found: &Explanation, paint: Paint) -> String {
    let kinds: Vec<&str> = found
        .found_as
        .iter()
        .map(|kind| match *kind {
            "event" => "the id of an event",
            "message" => "the id of a Pub/Sub message",
            "hasura" => "Hasura's id of an event",
            "correlation" => "a correlation id",
            "trace" => "a trace id",
            "dead_letter" => "the id of a dead letter",
            other => other,
        })
        .collect();
    let line = format!("{} is {}", safe(&found.id), kinds.join(" and "));
    let mut out = paint.ink(Ink::Dim, &line) + "\n";
    for event in &found.events {
        let node = story(event, paint);
        out.push('\n');
        out.push_str(&node.line);
        out.push('\n');
        branches(&node.below, "", &mut out);
    }
    if found.events.len() >= 100 {
        let line = "\nthere may be more; only 100 events are shown\n";
        out.push_str(&paint.ink(Ink::Yellow, line));
    }
    out
}

fn branches(nodes: &[Node], before: &str, out: &mut String) {
    for (number, node) in nodes.iter().enumerate() {
        let last = number + 1 == nodes.len();
        let (branch, below) = if last {
            ("└─ ", "   ")
        } else {
            ("├─ ", "│  ")
        };
        out.push_str(&format!("{before}{branch}{}\n", node.line));
        branches(&node.below, &format!("{before}{below}"), out);
    }
}

fn story(event: &EventStory, paint: Paint) -> Node {
    let mut names = Vec::new();
    let mut name = |what: &str, id: Option<&String>| {
        if let Some(id) = id.filter(|id| **id != event.event_id) {
            names.push(format!("{what} {}", safe(id)));
        }
    };
    name("hasura", event.hasura_id.as_ref());
    name("correlation", event.correlation_id.as_ref());
    name("trace", event.trace_id.as_ref());
    let title = paint.ink(Ink::Bold, &cut(&event.event_type, 80));
    let mut below = Vec::new();
    if !names.is_empty() {
        below.push(Node::leaf(paint.ink(Ink::Dim, &names.join(", "))));
    }
    below.extend(event.kept.as_ref().map(|kept| row(kept, paint)));
    below.extend(event.runs.iter().map(|it| run(it, paint)));
    below.extend(event.repeats.iter().map(|it| repeat(it, paint)));
    below.extend(event.emitted.iter().map(|it| emission(it, paint)));
    below.extend(event.dead_letters.iter().map(|it| letter(it, paint)));
    let remarks = event.remarks.iter();
    below.extend(remarks.map(|it| Node::leaf(paint.ink(Ink::Yellow, &format!("→ {}", safe(it))))));
    Node {
        line: format!("{title}  {}", safe(&event.event_id)),
        below,
    }
}

fn row(kept: &Kept, paint: Paint) -> Node {
    let mut words = vec![paint.ink(ink_of(&kept.status), &safe(&kept.status))];
    if kept.attempts > 0 {
        words.push(format!("{} failed", tries(kept.attempts)));
    }
    words.extend(kept.last_error_code.as_ref().map(|code| safe(code)));
    if let Some(at) = kept.next_attempt_at.filter(|_| kept.status == "pending") {
        words.push(format!("next try {}", time(at)));
    }
    let made = paint.ink(Ink::Dim, &time(kept.created_at));
    let line = format!("{made}  row in events: {}", words.join(", "));
    Node::leaf(line)
}

fn run(run: &Run, paint: Paint) -> Node {
    let at = paint.ink(Ink::Dim, &time(run.started_at));
    let generation = match run.generation {
        0 => String::new(),
        again => format!(" (run again, {again})"),
    };
    let below = run.failures.iter().map(|failure| {
        let at = paint.ink(Ink::Dim, &time(failure.at));
        let ink = if failure.error_class == "transient" {
            Ink::Yellow
        } else {
            Ink::Red
        };
        let what = paint.ink(ink, &safe(&failure.error_message));
        Node::leaf(format!("{at}  try {} failed: {what}", failure.attempt))
    });
    let mut below: Vec<Node> = below.collect();
    let mut came = vec![format!("instance {}", safe(&run.instance))];
    came.extend(
        run.message_id
            .as_ref()
            .map(|id| format!("message {}", safe(id))),
    );
    if let Some(retry) = run.hasura_retry.filter(|retry| *retry > 0) {
        came.push(format!("Hasura's retry {retry}"));
    }
    below.push(Node::leaf(paint.ink(Ink::Dim, &came.join(", "))));
    Node {
        line: format!(
            "{at}  {}{generation}: {}",
            safe(&run.handler),
            ended(run, paint)
        ),
        below,
    }
}

/// How a run ended, in words.
fn ended(run: &Run, paint: Paint) -> String {
    let word = match (&run.outcome, run.state.as_str()) {
        (Some(outcome), _) => outcome.as_str(),
        (None, "given_back") => "waits for its next try",
        (None, "given_up") => "given up",
        (None, state) => state,
    };
    let mut words = vec![paint.ink(ink_of(word), &safe(word))];
    words.extend(run.reason.as_ref().map(|why| safe(why)));
    if run.attempt > 1 {
        words.push(format!("at try {}", run.attempt));
    }
    words.extend(
        run.duration_ms
            // Runs that are settled in one go with others have no time of their own.
            .filter(|ms| *ms > 0.0)
            .map(|ms| format!("in {}", short(ms / 1000.0))),
    );
    words.join(", ")
}

fn ink_of(word: &str) -> Ink {
    match word {
        "done" | "ended" | "skipped" | "duplicate" | "published" => Ink::Green,
        "dead_lettered" | "given up" | "failed" | "parked" => Ink::Red,
        _ => Ink::Yellow,
    }
}

fn repeat(repeat: &Repeat, paint: Paint) -> Node {
    let kind = match repeat.kind.as_str() {
        "pubsub_redelivery" => "came again: Pub/Sub delivered the message once more",
        "hasura_retry" => "came again: Hasura tried once more",
        "double_publish" => "came again: published twice",
        "operator_redelivery" => "came again: somebody redelivered it in Hasura",
        "id_reuse" => "another event came under the same id",
        other => other,
    };
    let mut words = vec![safe(kind)];
    words.extend(
        repeat
            .message_id
            .as_ref()
            .map(|id| format!("message {}", safe(id))),
    );
    words.push(match (repeat.ran_again, repeat.kind.as_str()) {
        (true, _) => "ran again".to_owned(),
        (false, "id_reuse") => paint.ink(Ink::Red, "kept as a dead letter"),
        (false, _) => "nothing to do".to_owned(),
    });
    let at = paint.ink(Ink::Dim, &time(repeat.at));
    Node::leaf(format!(
        "{at}  {}: {}",
        safe(&repeat.handler),
        words.join(", ")
    ))
}

fn emission(emission: &Emission, paint: Paint) -> Node {
    let at = paint.ink(Ink::Dim, &time(emission.created_at));
    let state = paint.ink(ink_of(&emission.state), &safe(&emission.state));
    let mut words = vec![format!("{state} on {}", safe(&emission.topic))];
    words.extend(emission.published_at.map(time));
    words.extend(
        emission
            .ordering_key
            .as_ref()
            .map(|key| format!("key {}", safe(key))),
    );
    words.extend(
        emission
            .broker_message_id
            .as_ref()
            .map(|id| format!("message {}", safe(id))),
    );
    if emission.attempts > 0 {
        words.push(format!("{} failed", tries(emission.attempts)));
    }
    words.extend(emission.last_error_code.as_ref().map(|code| safe(code)));
    let line = format!(
        "{at}  {} emitted {} {}: {}",
        safe(&emission.handler),
        paint.ink(Ink::Bold, &cut(&emission.event_type, 80)),
        safe(&emission.event_id),
        words.join(", ")
    );
    let below = emission
        .then
        .iter()
        .map(|then| story(then, paint))
        .collect();
    Node { line, below }
}

fn letter(letter: &DeadLetter, paint: Paint) -> Node {
    let at = paint.ink(Ink::Dim, &time(letter.kept_at));
    let ink = if letter.status == "open" {
        Ink::Red
    } else {
        Ink::Dim
    };
    let mut words = vec![
        paint.ink(ink, &safe(&letter.status)),
        safe(&letter.error_message),
    ];
    words.extend(letter.note.as_ref().map(|note| cut(note, 120)));
    let line = format!(
        "{at}  dead letter {}: {}",
        safe(&letter.id),
        words.join(", ")
    );
    Node::leaf(line)
}

fn tries(count: i32) -> String {
    match count {
        1 => "1 try".to_owned(),
        _ => format!("{count} tries"),
    }
}

/// The runs of a handler as a table, for what shows one event only.
pub(super) fn runs_table(runs: &[Run], paint: Paint) -> String {
    let mut table = Table::new(&["HANDLER", "RUN", "STARTED", "ENDED", "CAME TO"]);
    for run in runs {
        let failures = run.failures.iter().map(|failure| {
            format!(
                "try {}: {}",
                failure.attempt,
                cut(&failure.error_message, 80)
            )
        });
        let lines: Vec<String> = std::iter::once(ended(run, Paint::none()))
            .chain(failures)
            .collect();
        table.row(vec![
            safe(&run.handler).into(),
            run.generation.to_string().into(),
            Cell::new(Ink::Dim, time(run.started_at)),
            Cell::new(Ink::Dim, time_or_dash(run.ended_at)),
            lines.join("\n").into(),
        ]);
    }
    table.render(paint)
}
