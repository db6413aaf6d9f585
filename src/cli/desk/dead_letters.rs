//! `hookyard dead-letters`: find, understand, retry and discard what failed.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::edit::{EditArgs, edit};
use super::explain::runs_table;
use super::moment::moment;
use super::text::{Facts, bytes, count, cut, indent, or_dash, safe, safe_lines, time};
use super::watch::{leave, watch};
use super::{Change, Form, open, show, told};
use crate::cli::output::{self, Cell, Ink, Paint, Table};
use crate::cli::progress::short;
use crate::cli::prompt;
use crate::desk::{
    By, DeadLetter, DeadLetterDetail, DeadLetterFilter, DeadLetterPage, Desk, Discard, Group, Page,
    RedrivePreview, RunMode, Share, StartRedrive,
};
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

/// Which dead letters.
#[derive(Debug, Clone, Default, Args)]
struct Which {
    /// Ids of dead letters.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Those of one group, as `groups` names it.
    #[arg(long, value_name = "FINGERPRINT")]
    group: Option<String>,
    /// Those of an event type.
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Those that failed in a handler.
    #[arg(long, value_name = "NAME")]
    handler: Option<String>,
    /// Those that came by `push`, `events`, `subscription` or `outbox`.
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
    /// `transient` or `permanent`.
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
    /// Those with an error code, such as resource_not_found.
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
    /// Those of an event.
    #[arg(long, value_name = "ID")]
    event: Option<String>,
    /// Those of a correlation id.
    #[arg(long, value_name = "ID")]
    correlation: Option<String>,
    /// Kept at or after this time: 2h (ago), 2026-11-21, 2026-11-21 09:00 (UTC).
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<String>,
    /// Kept before this time.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<String>,
}

impl Which {
    /// Refuses to mean everything by accident.
    ///
    /// # Errors
    /// When nothing was given.
    fn some(&self, or: &str) -> Result<(), BoxError> {
        match self.filter(None) == DeadLetterFilter::default() {
            true => Err(format!("say which: by id, by --group or another filter{or}").into()),
            false => Ok(()),
        }
    }

    fn filter(&self, status: Option<&String>) -> DeadLetterFilter {
        DeadLetterFilter {
            ids: self.ids.clone(),
            fingerprint: self.group.clone(),
            event_type: self.event_type.clone(),
            handler: self.handler.clone(),
            source: self.source.clone(),
            error_class: self.class.clone(),
            error_code: self.code.clone(),
            event_id: self.event.clone(),
            correlation_id: self.correlation.clone(),
            status: status.cloned(),
            since: self.since.clone(),
            until: self.until.clone(),
        }
    }
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

#[derive(Args)]
pub(in super::super) struct RedriveArgs {
    #[command(flatten)]
    which: Which,
    /// Every open one.
    #[arg(long)]
    all: bool,
    /// Also what was done meanwhile: its handlers run once more.
    #[arg(long)]
    force: bool,
    /// Events per second.
    #[arg(long, value_name = "N")]
    per_second: Option<i64>,
    /// Only show what it would do.
    #[arg(long)]
    dry_run: bool,
    /// Do not wait for the end.
    #[arg(long)]
    detach: bool,
    /// A name for this request: given again, it finds the redrive it began.
    #[arg(long, value_name = "NAME")]
    request_id: Option<String>,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    form: Form,
}

#[derive(Args)]
pub(in super::super) struct DiscardArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    change: Change,
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

fn page_for_people(page: &DeadLetterPage, with_status: bool, paint: Paint) -> String {
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

fn table(letters: &[DeadLetter], with_status: bool, paint: Paint) -> String {
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
            Cell::new(Ink::Dim, time(&letter.kept_at)),
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
    let found = desk
        .dead_letter(&args.id, args.payload)
        .await
        .map_err(told)?;
    if args.payload {
        let by = By {
            actor: super::user(),
            reason: "payload looked at".to_owned(),
        };
        let noted = desk
            .note("dead_letter.read", &found.dead_letter.id, &by)
            .await;
        noted.map_err(told)?;
    }
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
        .add("first seen", time(&letter.first_at))
        .add("given up", time(&letter.kept_at))
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
            .as_deref()
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
        let times = format!("{}\n{}", time(&group.first_at), time(&group.last_at));
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

async fn redrive(args: RedriveArgs) -> Result<ExitCode, BoxError> {
    if !args.all {
        args.which.some(", or --all")?;
    }
    let desk = open()?;
    let mut ask = StartRedrive {
        select: args.which.filter(None),
        all: args.all,
        mode: if args.force {
            RunMode::Force
        } else {
            RunMode::IfNotDone
        },
        per_second: args.per_second,
        request_id: args.request_id.clone(),
        expected: None,
    };
    let preview = desk.preview_redrive(&ask).await.map_err(told)?;
    if args.dry_run {
        return show(args.form, &preview, preview_for_people);
    }
    let by = args.change.by()?;
    if !args.form.json {
        output::print(&preview_for_people(&preview, Paint::of_stdout()));
    }
    // Asked for under a name it may have begun before, and have taken them all.
    if preview.count == 0 && ask.request_id.is_none() {
        return nothing(args.form, &preview);
    }
    let what = count(preview.count, "dead letter");
    prompt::confirm(&format!("run {what} again?"), args.change.yes)?;
    ask.expected = Some(preview.count);
    let begun = desk.redrive(&ask, &by).await.map_err(told)?;
    match args.detach {
        true => leave(&begun, args.form),
        false => watch(&desk, begun, args.form).await,
    }
}

fn nothing(form: Form, preview: &RedrivePreview) -> Result<ExitCode, BoxError> {
    if form.json {
        return show(form, preview, preview_for_people);
    }
    Ok(ExitCode::SUCCESS)
}

fn preview_for_people(preview: &RedrivePreview, paint: Paint) -> String {
    if preview.count == 0 {
        return "no open dead letter is meant by this\n".to_owned();
    }
    let mut facts = Facts::default();
    facts
        .add("handlers", shares(&preview.handlers))
        .add("types", shares(&preview.event_types));
    if let (Some(first), Some(last)) = (&preview.first_at, &preview.last_at) {
        facts.add("kept", format!("{} to {}", time(first), time(last)));
    }
    if preview.done_since > 0 {
        facts.add(
            "done since",
            format!("{}, which are skipped", preview.done_since),
        );
    }
    facts.add("takes about", short(preview.seconds));
    let shown = i64::try_from(preview.sample.len()).unwrap_or(0);
    let mut out = format!(
        "{}\n{}",
        paint.ink(Ink::Bold, &count(preview.count, "dead letter")),
        facts.render(paint)
    );
    out.push_str(&indent(&table(&preview.sample, false, paint), "  "));
    if shown < preview.count {
        let line = format!("  … and {} more", preview.count - shown);
        out.push_str(&format!("{}\n", paint.ink(Ink::Dim, &line)));
    }
    out
}

/// `a 3, b 1`
pub(super) fn shares(shares: &[Share]) -> String {
    let words: Vec<String> = shares
        .iter()
        .map(|share| format!("{} {}", cut(&share.name, 40), share.count))
        .collect();
    words.join(", ")
}

async fn discard(args: &DiscardArgs) -> Result<ExitCode, BoxError> {
    args.which.some("")?;
    let desk = open()?;
    let by = args.change.by()?;
    let found = look(&desk, args).await?;
    if !args.form.json {
        output::print(&page_for_people(&found, false, Paint::of_stdout()));
    }
    if found.total > 0 {
        let what = count(found.total, "dead letter");
        prompt::confirm(&format!("give {what} up for good?"), args.change.yes)?;
    }
    let ask = Discard {
        select: args.which.filter(None),
        expected: Some(found.total),
    };
    let discarded = desk.discard(&ask, &by).await.map_err(told)?;
    show(args.form, &discarded, |it, _| {
        format!("{} discarded\n", count(it.count, "dead letter"))
    })
}

async fn look(desk: &Desk, args: &DiscardArgs) -> Result<DeadLetterPage, BoxError> {
    let page = Page {
        limit: Some(10),
        cursor: None,
    };
    let filter = args.which.filter(None);
    let found = desk.dead_letters(&filter, &page).await.map_err(told)?;
    match found.total_is_more {
        true => {
            Err("more than can be counted are meant: narrow it with --since and --until".into())
        }
        false => Ok(found),
    }
}
