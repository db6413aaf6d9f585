//! `hookyard erase`: takes out what was kept about somebody.

use std::process::ExitCode;

use clap::Args;

use super::text::{Facts, count};
use super::{Change, Form, open, show, told};
use crate::cli::output::{self, Paint};
use crate::cli::prompt;
use crate::desk::{Erase, Erased};
use crate::error::BoxError;

/// What `hookyard erase` takes.
#[derive(Args)]
pub(in super::super) struct EraseArgs {
    /// What identifies the subject wherever it is mentioned: a row's id, a mail address.
    #[arg(
        value_name = "TEXT",
        required_unless_present = "event",
        conflicts_with = "event"
    )]
    subject: Option<String>,
    /// Only this event.
    #[arg(long, value_name = "ID")]
    event: Option<String>,
    /// Only count.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    form: Form,
}

/// Runs the command.
///
/// # Errors
/// What the desk refused, or that the database is away.
pub(in super::super) async fn erase(args: EraseArgs) -> Result<ExitCode, BoxError> {
    let desk = open()?;
    let by = args.change.by()?;
    let mut ask = Erase {
        event_id: args.event,
        subject: args.subject,
        dry_run: true,
    };
    let found = desk.erase(&ask, &by).await.map_err(told)?;
    if args.dry_run {
        return show(args.form, &found, for_people);
    }
    if !args.form.json {
        output::print(&for_people(&found, Paint::of_stdout()));
    }
    prompt::confirm("take out the content for good?", args.change.yes)?;
    ask.dry_run = false;
    let erased = desk.erase(&ask, &by).await.map_err(told)?;
    show(args.form, &erased, |it, _| {
        let all = it.events + it.dead_letters + it.outbox + it.subjects;
        format!("{} erased\n", count(all, "row"))
    })
}

fn for_people(found: &Erased, paint: Paint) -> String {
    let mut facts = Facts::default();
    facts
        .add("events", found.events.to_string())
        .add("dead letters", found.dead_letters.to_string())
        .add("outbox", found.outbox.to_string())
        .add("newest changes", found.subjects.to_string());
    if found.waiting > 0 {
        let text = format!("{} still to be published; ask again later", found.waiting);
        facts.add("left", text);
    }
    facts.render(paint)
}
