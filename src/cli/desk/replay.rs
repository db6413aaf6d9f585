//! `hookyard replay`: runs processed events again.

use std::process::ExitCode;

use clap::Args;

use super::moment::moment;
use super::text::{Facts, cut, or_dash, safe, time};
use super::work::{self, Plan, Work, shares};
use super::{open, told};
use crate::cli::output::{Cell, Ink, Paint, Table};
use crate::cli::progress::short;
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
    #[command(flatten)]
    work: Work,
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
        per_second: args.work.per_second,
        request_id: args.work.request_id.clone(),
        expected: None,
    };
    let preview = desk.preview_replay(&ask).await.map_err(told)?;
    ask.expected = Some(preview.count);
    let plan = Plan {
        preview: &preview,
        count: preview.count,
        one: "processed event",
        for_people,
    };
    let begin = async |by| desk.replay(&ask, &by).await;
    args.work.carry_out(&desk, plan, begin).await
}

fn for_people(preview: &ReplayPreview, paint: Paint) -> String {
    if preview.count == 0 {
        return "no processed event is meant by this\n".to_owned();
    }
    let mut facts = Facts::default();
    facts
        .add("types", shares(&preview.event_types))
        .span("made", preview.first_at, preview.last_at)
        .add("takes about", short(preview.seconds));
    for handler in &preview.handlers {
        let name = safe(&handler.handler);
        let text = match handler.replay.as_str() {
            "skip" => paint.ink(
                Ink::Dim,
                &format!("{name}, skipped: it does not want to be replayed"),
            ),
            _ => format!("{name} gets {}", handler.count),
        };
        facts.add("handler", text);
    }
    let mut table = Table::new(&["EVENT", "MADE", "EVENT TYPE", "AGGREGATE", "ENDED AS"]);
    for event in &preview.sample {
        table.row(vec![
            safe(&event.id).into(),
            Cell::new(Ink::Dim, time(event.created_at)),
            cut(&event.event_type, 40).into(),
            or_dash(event.aggregate_id.as_ref()).into(),
            safe(&event.status).into(),
        ]);
    }
    let sample = (table.render(paint), preview.sample.len());
    work::preview(
        (preview.count, "processed event"),
        &facts,
        (&sample.0, sample.1),
        paint,
    )
}
