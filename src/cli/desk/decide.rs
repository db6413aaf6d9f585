//! `hookyard dead-letters redrive` and `discard`: what is done about failed events.

use std::process::ExitCode;

use clap::Args;

use super::dead_letters::{page_for_people, table};
use super::text::{Facts, count};
use super::which::Which;
use super::work::{self, Plan, Work, shares};
use super::{Change, Form, open, show, told};
use crate::cli::output::{self, Paint};
use crate::cli::progress::short;
use crate::cli::prompt;
use crate::desk::{DeadLetterPage, Desk, Discard, Page, RedrivePreview, RunMode, StartRedrive};
use crate::error::BoxError;

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
    #[command(flatten)]
    work: Work,
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

/// Runs dead letters again.
///
/// # Errors
/// What the desk refused, or that nobody said yes.
pub(super) async fn redrive(args: RedriveArgs) -> Result<ExitCode, BoxError> {
    if !args.all {
        args.which.some(", or --all")?;
    }
    let desk = open()?;
    let mut ask = StartRedrive {
        select: args.which.filter(None),
        all: args.all,
        mode: match args.force {
            true => RunMode::Force,
            false => RunMode::IfNotDone,
        },
        per_second: args.work.per_second,
        request_id: args.work.request_id.clone(),
        expected: None,
    };
    let preview = desk.preview_redrive(&ask).await.map_err(told)?;
    ask.expected = Some(preview.count);
    let plan = Plan {
        preview: &preview,
        count: preview.count,
        one: "dead letter",
        for_people: preview_for_people,
    };
    let begin = async |by| desk.redrive(&ask, &by).await;
    args.work.carry_out(&desk, plan, begin).await
}

fn preview_for_people(preview: &RedrivePreview, paint: Paint) -> String {
    if preview.count == 0 {
        return "no open dead letter is meant by this\n".to_owned();
    }
    let mut facts = Facts::default();
    facts
        .add("handlers", shares(&preview.handlers))
        .add("types", shares(&preview.event_types))
        .span("kept", preview.first_at, preview.last_at);
    if preview.done_since > 0 {
        let text = format!("{}, which are skipped", preview.done_since);
        facts.add("done since", text);
    }
    facts.add("takes about", short(preview.seconds));
    let sample = table(&preview.sample, false, paint);
    let shown = preview.sample.len();
    work::preview(
        (preview.count, "dead letter"),
        &facts,
        (&sample, shown),
        paint,
    )
}

/// Gives dead letters up.
///
/// # Errors
/// What the desk refused, or that nobody said yes.
pub(super) async fn discard(args: &DiscardArgs) -> Result<ExitCode, BoxError> {
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
