//! `hookyard dead-letters redrive` and `discard`: what is done about failed events.

use std::process::ExitCode;

use clap::Args;

use super::dead_letters::{page_for_people, table};
use super::text::{Facts, count, cut, indent, time};
use super::watch::{leave, watch};
use super::which::Which;
use super::{Change, Form, open, show, told};
use crate::cli::output::{self, Ink, Paint};
use crate::cli::progress::short;
use crate::cli::prompt;
use crate::desk::{
    DeadLetterPage, Desk, Discard, Page, RedrivePreview, RunMode, Share, StartRedrive,
};
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
