//! `hookyard dead-letters`: find, understand, retry and discard what failed.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::decide::{DiscardArgs, RedriveArgs, discard, redrive};
use super::edit::{EditArgs, edit};
use super::explain::runs_table;
use super::text::{Facts, bytes, count, cut, indent, or_dash, safe, safe_lines, time};
use super::which::Which;
use super::{Form, looked_at, open, show, told};
use crate::cli::output::{Cell, Ink, Paint, Table};
use crate::desk::{DeadLetter, DeadLetterDetail, DeadLetterPage, Group, Page};
use crate::error::BoxError;

/// What `hookyard dead-letters` can do.
#[derive(Subcommand)]
pub(in super::super) enum DeadLettersCommand {
    /// List them, newest first.
    List(ListArgs),
    /// Show one with everything around it.
    Show(ShowArgs),
    /// Show how many failed for which reason. The place to start.
    Groups(GroupsArgs),
    /// Run them again, after showing what that would do.
    ///
    /// Takes the open ones that were there when it began, at a steady pace, oldest first; what
    /// was done meanwhile is skipped. An instance of the service runs them; this command only
    /// shows how far it is, and may be left. Exits 0 when all ended well, 2 when some failed
    /// again.
    Redrive(RedriveArgs),
    /// Give them up for good. They are kept until the retention ends, but never run again.
    Discard(DiscardArgs),
    /// Run a corrected copy of one under a new id, and close the old one.
    Edit(EditArgs),
}

#[derive(Args)]
pub(in super::super) struct ListArgs {
    #[command(flatten)]
    which: Which,
    /// `open`, `redriven`, `discarded` or `all`.
    #[arg(long, value_name = "STATUS", default_value = "open")]
    status: String,
    /// How many at most.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    limit: i64,
    /// Where the page before ended.
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    #[command(flatten)]
    form: Form,
}

#[derive(Args)]
pub(in super::super) struct ShowArgs {
    /// Id of the dead letter.
    id: String,
    /// Print the original as well: it holds row data. Goes into the audit.
    #[arg(long)]
    payload: bool,
    #[command(flatten)]
    form: Form,
}

#[derive(Args)]
pub(in super::super) struct GroupsArgs {
    #[command(flatten)]
    which: Which,
    /// `open`, `redriven`, `discarded` or `all`.
    #[arg(long, value_name = "STATUS", default_value = "open")]
    status: String,
    #[command(flatten)]
    form: Form,
}

/// Runs one of the commands.
///
/// # Errors
/// What the desk refused, or that the database is away.
pub(in super::super) async fn dead_letters(
    command: DeadLettersCommand,
) -> Result<ExitCode, BoxError> {
    match command {
        DeadLettersCommand::List(args) => list(&args).await,
        DeadLettersCommand::Show(args) => show_one(&args).await,
        DeadLettersCommand::Groups(args) => groups(&args).await,
        DeadLettersCommand::Redrive(args) => redrive(args).await,
        DeadLettersCommand::Discard(args) => discard(&args).await,
        DeadLettersCommand::Edit(args) => edit(&args).await,
    }
}

async fn list(args: &ListArgs) -> Result<ExitCode, BoxError> {
    let filter = args.which.filter(Some(&args.status));
    let page = Page {
        limit: Some(args.limit),
        cursor: args.cursor.clone(),
    };
    let found = open()?.dead_letters(&filter, &page).await.map_err(told)?;
    let with_status = args.status != "open";
    show(args.form, &found, |found, paint| {
        page_for_people(found, with_status, paint)
    })
}

pub(super) fn page_for_people(page: &DeadLetterPage, with_status: bool, paint: Paint) -> String {
    if page.dead_letters.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let mut out = table(&page.dead_letters, with_status, paint);
    let more = if page.total_is_more { "more than " } else { "" };
    let shown = page.dead_letters.len();
    let mut line = format!("{shown} of {more}{}", page.total);
    if let Some(next) = &page.next {
        line.push_str(&format!("; go on with --cursor {}", safe(next)));
    }
    out.push_str(&format!("\n{}\n", paint.ink(Ink::Dim, &line)));
    out
}

pub(super) fn table(letters: &[DeadLetter], with_status: bool, paint: Paint) -> String {
    let mut head = vec![
        "ID",
        "KEPT",
        "EVENT TYPE",
        "HANDLER",
        "ERROR",
        "TRIES",
        "SOURCE",
    ];
    if with_status {
        head.push("STATUS");
    }
    let mut table = Table::new(&head);
    for letter in letters {
        let mut row = vec![
            safe(&letter.id).into(),
            Cell::new(Ink::Dim, time(letter.kept_at)),
            cut(&letter.event_type, 40).into(),
            or_dash(letter.handler.as_ref()).into(),
            Cell::new(ink_of(&letter.error_class), cut(&letter.error_code, 32)),
            letter.retry_count.to_string().into(),
            safe(&letter.source).into(),
        ];
        if with_status {
            row.push(Cell::new(
                ink_of_status(&letter.status),
                safe(&letter.status),
            ));
        }
        table.row(row);
    }
    table.render(paint)
}

fn ink_of(class: &str) -> Ink {
    match class {
        "transient" => Ink::Yellow,
        _ => Ink::Red,
    }
}

fn ink_of_status(status: &str) -> Ink {
    match status {
        "open" => Ink::Red,
        "redriven" => Ink::Green,
        _ => Ink::Dim,
    }
}

async fn show_one(args: &ShowArgs) -> Result<ExitCode, BoxError> {
    let desk = open()?;
    let found = match args.payload {
        true => desk.dead_letter_with_payload(&args.id, &looked_at()).await,
        false => desk.dead_letter(&args.id).await,
    };
    let found = found.map_err(told)?;
    show(args.form, &found, detail_for_people)
}

fn detail_for_people(detail: &DeadLetterDetail, paint: Paint) -> String {
    let letter = &detail.dead_letter;
    let status = paint.ink(ink_of_status(&letter.status), &safe(&letter.status));
    let mut facts = Facts::default();
    let event_type = match letter.event_type.as_str() {
        "" => "(not decoded)",
        given => given,
    };
    let tries = count(i64::from(letter.retry_count), "time");
    facts
        .add("event", safe(&letter.event_id))
        .add("type", safe(event_type))
        .add(
            "failed in",
            letter
                .handler
                .as_ref()
                .map_or_else(|| "no handler".to_owned(), |name| safe(name)),
        )
        .add(
            "because",
            paint.ink(ink_of(&letter.error_class), &safe(&letter.error_message)),
        )
        .add(
            "error",
            format!(
                "{}, {}",
                safe(&letter.error_class),
                safe(&letter.error_code)
            ),
        )
        .add("tried", tries)
        .add("first seen", time(letter.first_at))
        .add("given up", time(letter.kept_at))
        .add("came by", safe(&letter.source))
        .maybe("message", letter.message_id.as_ref())
        .maybe("correlation", letter.correlation_id.as_ref())
        .maybe("trace", letter.trace_id.as_ref())
        .add("group", safe(&letter.fingerprint))
        .add("size", bytes(letter.size_bytes));
    if letter.generation > 0 {
        facts.add("run", format!("{} (0 is the first)", letter.generation));
    }
    if let Some(by) = &letter.decided_by {
        let at = letter
            .decided_at
            .map_or_else(String::new, |at| format!(", {}", time(at)));
        facts.add("decided by", format!("{}{at}", safe(by)));
    }
    facts
        .maybe("note", letter.note.as_ref())
        .maybe("redrive", letter.redrive_id.as_ref());
    let mut out = format!(
        "dead letter {}  {status}\n{}",
        safe(&letter.id),
        facts.render(paint)
    );
    if !detail.runs.is_empty() {
        out.push_str("\nruns\n");
        out.push_str(&indent(&runs_table(&detail.runs, paint), "  "));
    }
    if let Some(delivery) = &detail.delivery {
        let text = serde_json::to_string_pretty(delivery).unwrap_or_default();
        out.push_str("\ndelivery\n");
        out.push_str(&indent(&safe_lines(&text), "  "));
    }
    if let Some(payload) = &detail.payload {
        let text = match (&payload.text, &payload.base64) {
            (Some(text), _) => pretty(text),
            (None, Some(base64)) => format!("(no text, in base64)\n{base64}"),
            (None, None) => "(none)".to_owned(),
        };
        out.push_str("\npayload\n");
        out.push_str(&indent(&safe_lines(&text), "  "));
    }
    if letter.status == "open" {
        let id = safe(&letter.id);
        let next = format!(
            "\nhookyard explain {}\nhookyard dead-letters redrive {id} --reason '…'\n\
             hookyard dead-letters edit {id} --reason '…'\n\
             hookyard dead-letters discard {id} --reason '…'\n",
            safe(&letter.event_id)
        );
        out.push_str(
            &next
                .lines()
                .map(|line| paint.ink(Ink::Dim, line) + "\n")
                .collect::<String>(),
        );
    }
    out
}

/// Breaks JSON into lines without touching a value: numbers and order stay as they were written.
fn pretty(text: &str) -> String {
    let raw: Result<&serde_json::value::RawValue, _> = serde_json::from_str(text);
    match raw {
        Ok(_) if text.len() < 200_000 => super::edit::pretty_json(text),
        _ => text.to_owned(),
    }
}

async fn groups(args: &GroupsArgs) -> Result<ExitCode, BoxError> {
    let filter = args.which.filter(Some(&args.status));
    let groups = open()?.groups(&filter).await.map_err(told)?;
    let answer = serde_json::json!({"groups": groups});
    show(args.form, &answer, |_, paint| {
        groups_for_people(&groups, paint)
    })
}

fn groups_for_people(groups: &[Group], paint: Paint) -> String {
    if groups.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let mut table = Table::new(&["COUNT", "GROUP", "FIRST AND LAST", "ERROR", "WHERE AND WHY"]);
    for group in groups {
        let place = match &group.handler {
            Some(handler) => safe(handler),
            None => format!("no handler, {}", cut(&group.event_type, 60)),
        };
        let times = format!("{}\n{}", time(group.first_at), time(group.last_at));
        table.row(vec![
            group.count.to_string().into(),
            safe(&group.fingerprint).into(),
            Cell::new(Ink::Dim, times),
            Cell::new(ink_of(&group.error_class), cut(&group.error_code, 32)),
            format!("{place}\n{}", cut(&group.error_message, 120)).into(),
        ]);
    }
    let total: i64 = groups.iter().map(|group| group.count).sum();
    let words = format!(
        "\n{} in {}; look at one: hookyard dead-letters list --group GROUP -n 1\n",
        count(total, "dead letter"),
        count(i64::try_from(groups.len()).unwrap_or(0), "group"),
    );
    table.render(paint) + &paint.ink(Ink::Dim, &words)
}
