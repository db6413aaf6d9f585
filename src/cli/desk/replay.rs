//! `hookyard replay`: runs processed events again.

use std::process::ExitCode;

use clap::Args;

use super::decide::shares;
use super::moment::moment;
use super::text::{Facts, count, cut, indent, or_dash, safe, time};
use super::watch::{leave, watch};
use super::{Change, Form, open, show, told};
use crate::cli::output::{self, Cell, Ink, Paint, Table};
use crate::cli::progress::short;
use crate::cli::prompt;
use crate::desk::{EventFilter, ReplayPreview, SideEffects, StartReplay};
use crate::error::BoxError;

/// What `hookyard replay` takes.
#[derive(Args)]
pub(in super::super) struct ReplayArgs {
    /// Ids of events.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Those of an event type.
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Those of an aggregate.
    #[arg(long, value_name = "ID")]
    aggregate: Option<String>,
    /// Made at or after this time: 2h (ago), 2026-11-21, 2026-11-21 09:00 (UTC).
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<String>,
    /// Made before this time.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<String>,
    /// Run only this handler.
    #[arg(long, value_name = "NAME")]
    handler: Option<String>,
    /// Run also the handlers that do not want to be replayed.
    #[arg(long)]
    side_effects: bool,
    /// Events per second.
    #[arg(long, value_name = "N")]
    per_second: Option<i64>,
    /// Only show what it would do.
    #[arg(long)]
    dry_run: bool,
    /// Do not wait for the end.
    #[arg(long)]
    detach: bool,
    /// A name for this request: given again, it finds the replay it began.
    #[arg(long, value_name = "NAME")]
    request_id: Option<String>,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    form: Form,
}

/// Runs the command.
///
/// # Errors
/// What the desk refused, or that the database is away.
pub(in super::super) async fn replay(args: ReplayArgs) -> Result<ExitCode, BoxError> {
    let desk = open()?;
    let mut ask = StartReplay {
        select: EventFilter {
            ids: args.ids,
            event_type: args.event_type,
            aggregate_id: args.aggregate,
            since: args.since,
            until: args.until,
        },
        handler: args.handler,
        side_effects: match args.side_effects {
            true => SideEffects::Run,
            false => SideEffects::AsDeclared,
        },
        per_second: args.per_second,
        request_id: args.request_id,
        expected: None,
    };
    let preview = desk.preview_replay(&ask).await.map_err(told)?;
    if args.dry_run {
        return show(args.form, &preview, for_people);
    }
    let by = args.change.by()?;
    if !args.form.json {
        output::print(&for_people(&preview, Paint::of_stdout()));
    }
    if preview.count == 0 && ask.request_id.is_none() {
        return match args.form.json {
            true => show(args.form, &preview, for_people),
            false => Ok(ExitCode::SUCCESS),
        };
    }
    let what = count(preview.count, "processed event");
    prompt::confirm(&format!("run {what} again?"), args.change.yes)?;
    ask.expected = Some(preview.count);
    let begun = desk.replay(&ask, &by).await.map_err(told)?;
    match args.detach {
        true => leave(&begun, args.form),
        false => watch(&desk, begun, args.form).await,
    }
}

fn for_people(preview: &ReplayPreview, paint: Paint) -> String {
    if preview.count == 0 {
        return "no processed event is meant by this\n".to_owned();
    }
    let mut facts = Facts::default();
    facts.add("types", shares(&preview.event_types));
    if let (Some(first), Some(last)) = (&preview.first_at, &preview.last_at) {
        facts.add("made", format!("{} to {}", time(first), time(last)));
    }
    facts.add("takes about", short(preview.seconds));
    for handler in &preview.handlers {
        let text = format!("{} gets {}", safe(&handler.handler), handler.count);
        match handler.replay.as_str() {
            "skip" => {
                let text = format!(
                    "{}, skipped: it does not want to be replayed",
                    safe(&handler.handler)
                );
                facts.add("handler", paint.ink(Ink::Dim, &text))
            }
            _ => facts.add("handler", text),
        };
    }
    let mut table = Table::new(&["EVENT", "MADE", "EVENT TYPE", "AGGREGATE", "ENDED AS"]);
    for event in &preview.sample {
        table.row(vec![
            safe(&event.id).into(),
            Cell::new(Ink::Dim, time(&event.created_at)),
            cut(&event.event_type, 40).into(),
            or_dash(event.aggregate_id.as_ref()).into(),
            safe(&event.status).into(),
        ]);
    }
    let mut out = format!(
        "{}\n{}",
        paint.ink(Ink::Bold, &count(preview.count, "processed event")),
        facts.render(paint)
    );
    out.push_str(&indent(&table.render(paint), "  "));
    let shown = i64::try_from(preview.sample.len()).unwrap_or(0);
    if shown < preview.count {
        let line = format!("  … and {} more", preview.count - shown);
        out.push_str(&format!("{}\n", paint.ink(Ink::Dim, &line)));
    }
    out
}
