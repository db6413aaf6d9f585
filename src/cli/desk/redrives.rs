//! `hookyard redrives`, `hookyard audit`: long work, and who began it.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::text::{Facts, cut, indent, safe, time};
use super::watch::watch;
use super::{Change, Form, open, show, told};
use crate::cli::output::{Cell, Ink, Paint, Table};
use crate::cli::prompt;
use crate::desk::{
    AuditEntry, AuditPage, Page, Redrive, RedriveDetail, RedrivePage, RunMode, SideEffects,
};
use crate::error::BoxError;

/// How many events that did not end well are shown.
const SHOWN: usize = 20;

/// What `hookyard redrives` can do.
#[derive(Subcommand)]
pub(in super::super) enum RedrivesCommand {
    /// List redrives and replays, newest first.
    List(PageArgs),
    /// Show one, with the events that did not end well.
    Show(ShowArgs),
    /// Stop one. What is in hand at the moment is finished; the rest stays as it is.
    Abort(AbortArgs),
}

#[derive(Args)]
pub(in super::super) struct PageArgs {
    /// How many at most.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    limit: i64,
    /// Where the page before ended.
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    #[command(flatten)]
    form: Form,
}

/// What `hookyard audit` takes.
pub(in super::super) type AuditArgs = PageArgs;

impl PageArgs {
    fn page(&self) -> Page {
        Page {
            limit: Some(self.limit),
            cursor: self.cursor.clone(),
        }
    }
}

#[derive(Args)]
pub(in super::super) struct ShowArgs {
    /// Id of the redrive or replay.
    id: String,
    /// Stay until it is over.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    form: Form,
}

#[derive(Args)]
pub(in super::super) struct AbortArgs {
    /// Id of the redrive or replay.
    id: String,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    form: Form,
}

/// Runs one of the commands.
///
/// # Errors
/// What the desk refused, or that the database is away.
pub(in super::super) async fn redrives(command: RedrivesCommand) -> Result<ExitCode, BoxError> {
    match command {
        RedrivesCommand::List(args) => {
            let found = open()?.redrives(&args.page()).await.map_err(told)?;
            show(args.form, &found, list_for_people)
        }
        RedrivesCommand::Show(args) => {
            let desk = open()?;
            let found = desk.redrive_detail(&args.id).await.map_err(told)?;
            match args.wait && found.redrive.state == "running" {
                true => watch(&desk, found.redrive, args.form).await,
                false => show(args.form, &found, detail_for_people),
            }
        }
        RedrivesCommand::Abort(args) => {
            let desk = open()?;
            let by = args.change.by()?;
            let id = safe(&args.id);
            prompt::confirm(&format!("stop {id}?"), args.change.yes)?;
            let stopped = desk.abort(&args.id, &by).await.map_err(told)?;
            show(args.form, &stopped, |stopped, _| {
                let left = stopped.total - stopped.ended();
                format!(
                    "{} stopped; {left} of {} were left as they are\n",
                    safe(&stopped.id),
                    stopped.total
                )
            })
        }
    }
}

fn list_for_people(page: &RedrivePage, paint: Paint) -> String {
    if page.redrives.is_empty() {
        return "no redrives\n".to_owned();
    }
    let mut table = Table::new(&[
        "ID", "BEGUN", "KIND", "STATE", "DONE", "FAILED", "SKIPPED", "OF", "BY", "WHY",
    ]);
    for redrive in &page.redrives {
        let failed = if redrive.failed > 0 {
            Ink::Red
        } else {
            Ink::Plain
        };
        table.row(vec![
            safe(&redrive.id).into(),
            Cell::new(Ink::Dim, time(redrive.created_at)),
            kind(redrive).into(),
            state(redrive),
            redrive.done.to_string().into(),
            Cell::new(failed, redrive.failed.to_string()),
            redrive.skipped.to_string().into(),
            redrive.total.to_string().into(),
            cut(&redrive.actor, 20).into(),
            cut(&redrive.reason, 40).into(),
        ]);
    }
    table.render(paint) + &go_on(page.next.as_ref(), paint)
}

/// Says how to see the next page, where there is one.
fn go_on(next: Option<&String>, paint: Paint) -> String {
    let line = next.map(|next| format!("\ngo on with --cursor {}\n", safe(next)));
    line.map_or_else(String::new, |line| paint.ink(Ink::Dim, &line))
}

/// What a redrive is called.
pub(super) fn kind(redrive: &Redrive) -> &'static str {
    match redrive.kind.as_str() {
        "replay" => "replay",
        _ => "redrive",
    }
}

fn state(redrive: &Redrive) -> Cell {
    match (redrive.state.as_str(), redrive.in_hand) {
        ("running", true) => Cell::new(Ink::Yellow, "running"),
        ("running", false) => Cell::new(Ink::Yellow, "waiting"),
        ("finished", _) => Cell::new(Ink::Green, "finished"),
        (other, _) => Cell::new(Ink::Dim, safe(other)),
    }
}

/// Renders one redrive or replay.
pub(super) fn detail_for_people(detail: &RedriveDetail, paint: Paint) -> String {
    let redrive = &detail.redrive;
    let mut facts = Facts::default();
    let failed = match redrive.failed {
        0 => "0 failed".to_owned(),
        failed => paint.ink(Ink::Red, &format!("{failed} failed")),
    };
    let words = match (redrive.state.as_str(), redrive.in_hand) {
        ("running", false) => "waiting for an instance of the service",
        ("running", true) => "running",
        (state, _) => state,
    };
    let end = match redrive.state.as_str() {
        "running" => format!("{words}, last moved {}", time(redrive.updated_at)),
        _ => format!("{}, {}", safe(words), time(redrive.updated_at)),
    };
    facts
        .add("state", end)
        .add(
            "events",
            format!(
                "{} of {}: {} done, {} skipped, {failed}",
                redrive.ended(),
                redrive.total,
                redrive.done,
                redrive.skipped
            ),
        )
        .add("pace", format!("{} per second", redrive.per_second))
        .add("begun", time(redrive.created_at))
        .add("by", safe(&redrive.actor))
        .add("because", safe(&redrive.reason))
        .maybe("handler", redrive.handler.as_ref());
    if redrive.mode == RunMode::Force && redrive.kind != "replay" {
        facts.add("mode", "force: also what was done");
    }
    if redrive.side_effects == SideEffects::Run {
        facts.add(
            "side effects",
            "also handlers that do not want to be replayed",
        );
    }
    let query = serde_json::to_string(&redrive.query).unwrap_or_default();
    facts.add("meant", cut(&query, 200));
    let mut out = format!(
        "{} {}\n{}",
        kind(redrive),
        safe(&redrive.id),
        facts.render(paint)
    );
    if !detail.problems.is_empty() {
        let mut table = Table::new(&["EVENT OR DEAD LETTER", "AT", "OUTCOME", "WHY"]);
        for item in detail.problems.iter().take(SHOWN) {
            table.row(vec![
                safe(&item.id).into(),
                Cell::new(Ink::Dim, time(item.at)),
                Cell::new(Ink::Red, safe(&item.outcome)),
                item.reason
                    .as_ref()
                    .map_or_else(|| "–".to_owned(), |why| cut(why, 80))
                    .into(),
            ]);
        }
        out.push_str("\nnot well\n");
        out.push_str(&indent(&table.render(paint), "  "));
        if detail.problems.len() > SHOWN {
            let line = "  … and more; `hookyard dead-letters groups` tells what for\n";
            out.push_str(&paint.ink(Ink::Dim, line));
        }
    }
    out
}

/// Prints the audit.
///
/// # Errors
/// When the database is away.
pub(in super::super) async fn audit(args: &AuditArgs) -> Result<ExitCode, BoxError> {
    let page = open()?.audit(&args.page()).await.map_err(told)?;
    show(args.form, &page, audit_for_people)
}

fn audit_for_people(page: &AuditPage, paint: Paint) -> String {
    if page.entries.is_empty() {
        return "nothing was changed yet\n".to_owned();
    }
    let mut table = Table::new(&["AT", "WHO", "DID", "TO", "WHY", "DETAIL"]);
    for entry in &page.entries {
        table.row(vec![
            Cell::new(Ink::Dim, time(entry.at)),
            cut(&entry.actor, 30).into(),
            safe(&entry.action).into(),
            cut(&entry.target, 48).into(),
            cut(&entry.reason, 60).into(),
            Cell::new(Ink::Dim, detail_of(entry)),
        ]);
    }
    table.render(paint) + &go_on(page.next.as_ref(), paint)
}

fn detail_of(entry: &AuditEntry) -> String {
    match entry.detail.as_object() {
        Some(detail) if detail.is_empty() => String::new(),
        _ => cut(&entry.detail.to_string(), 80),
    }
}
