//! `hookyard status`: how the durable half is doing.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Args;

use super::redrives::kind;
use super::text::{Facts, count, safe, time, time_or_dash};
use super::{Form, open, show, told};
use crate::cli::output::{Cell, Ink, Paint, Table};
use crate::cli::progress::short;
use crate::desk::{
    DeadLettersStatus, EventsStatus, InboxStatus, LaneStatus, OutboxStatus, Redrive, Status,
};
use crate::error::BoxError;

/// What waits longer than this is worth a look, in seconds.
const OLD: f64 = 300.0;

/// What `hookyard status` takes.
#[derive(Args)]
pub(in super::super) struct StatusArgs {
    #[command(flatten)]
    form: Form,
    /// Show every lane, not only those that are paused or fall behind.
    #[arg(long)]
    lanes: bool,
}

/// Prints the status.
///
/// # Errors
/// When the database is away.
pub(in super::super) async fn status(args: &StatusArgs) -> Result<ExitCode, BoxError> {
    let status = open()?.status().await.map_err(told)?;
    show(args.form, &status, |status, paint| {
        for_people(status, args.lanes, paint)
    })
}

fn for_people(status: &Status, all_lanes: bool, paint: Paint) -> String {
    let mut facts = Facts::default();
    facts
        .add("events", events(&status.events, paint))
        .add("outbox", outbox(&status.outbox, paint))
        .add("inbox", inbox(&status.inbox, paint))
        .add("dead letters", dead_letters(&status.dead_letters, paint));
    for it in &status.redrives {
        facts.add(kind(it), redrive(it, paint));
    }
    let mut out = format!(
        "{}  {}\n{}",
        paint.ink(Ink::Bold, status.database),
        paint.ink(Ink::Dim, &time(status.now)),
        facts.render(paint)
    );
    let odd = |lane: &&LaneStatus| {
        all_lanes || lane.failures > 0 || lane.paused_until.is_some() || is_old(lane)
    };
    let lanes: Vec<&LaneStatus> = status.lanes.iter().filter(odd).collect();
    if !lanes.is_empty() {
        out.push('\n');
        out.push_str(&table(&lanes, paint));
    }
    out + &instances(status, paint)
}

fn events(events: &EventsStatus, paint: Paint) -> String {
    let mut words = vec![match events.pending {
        0 => "nothing pending".to_owned(),
        pending => format!("{pending} pending"),
    }];
    if events.due > 0 {
        words.push(format!("{} due", events.due));
    }
    if events.retrying > 0 {
        let text = format!("{} waiting for their next try", events.retrying);
        words.push(paint.ink(Ink::Yellow, &text));
    }
    words.extend(oldest(events.oldest_age_seconds, paint));
    words.join(", ")
}

fn outbox(outbox: &OutboxStatus, paint: Paint) -> String {
    let mut words = vec![match outbox.waiting {
        0 => "nothing to publish".to_owned(),
        waiting => format!("{waiting} to publish"),
    }];
    words.extend(oldest(outbox.oldest_age_seconds, paint));
    if outbox.parked > 0 {
        let text = format!("{} refused by the broker for good", outbox.parked);
        words.push(paint.ink(Ink::Yellow, &text));
    }
    words.join(", ")
}

fn inbox(inbox: &InboxStatus, paint: Paint) -> String {
    let mut words = vec![format!("{} running", inbox.running)];
    if inbox.abandoned > 0 {
        let text = format!("{} whose instance is gone or stuck", inbox.abandoned);
        words.push(paint.ink(Ink::Red, &text));
    }
    words.push(format!("{} remembered", inbox.entries));
    words.join(", ")
}

fn dead_letters(letters: &DeadLettersStatus, paint: Paint) -> String {
    if letters.open == 0 {
        return paint.ink(Ink::Green, "none open");
    }
    let mut words = vec![paint.ink(Ink::Red, &format!("{} open", letters.open))];
    let age = letters.oldest_age_seconds.map(short);
    words.extend(age.map(|age| format!("the oldest for {age}")));
    words.push("see `hookyard dead-letters groups`".to_owned());
    words.join(", ")
}

fn redrive(redrive: &Redrive, paint: Paint) -> String {
    let state = match redrive.in_hand {
        true => "running",
        false => "waiting for an instance",
    };
    let failed = match redrive.failed {
        0 => String::new(),
        failed => paint.ink(Ink::Red, &format!(", {failed} failed")),
    };
    let (id, ended, total) = (&redrive.id, redrive.ended(), redrive.total);
    format!("{id} {state}, {ended} of {total}{failed}")
}

/// Says who works, or that nobody does although there is something to do.
fn instances(status: &Status, paint: Paint) -> String {
    let holders = status
        .lanes
        .iter()
        .filter_map(|lane| lane.holder.as_deref());
    let holders: BTreeSet<&str> = holders.collect();
    // A lane that rests has no holder, however many instances there are.
    let due = || {
        status
            .lanes
            .iter()
            .filter(|it| it.oldest_age_seconds.is_some())
    };
    let line = match i64::try_from(holders.len()).unwrap_or(0) {
        0 if due().any(|lane| lane.paused_until.is_none()) => {
            let text = "no instance works on what waits: is the service running, with ENABLE_POLLING=true for events?";
            paint.ink(Ink::Yellow, text)
        }
        0 if due().count() > 0 => {
            let text = "what is due rests: an upstream or the broker is away; an instance tries again when the pause is over";
            paint.ink(Ink::Yellow, text)
        }
        0 => return String::new(),
        some => {
            let text = format!("{} working on lanes", count(some, "instance"));
            paint.ink(Ink::Dim, &text)
        }
    };
    format!("\n{line}\n")
}

fn oldest(age: Option<f64>, paint: Paint) -> Option<String> {
    let age = age?;
    let text = format!("the oldest for {}", short(age));
    let ink = if age > OLD { Ink::Red } else { Ink::Plain };
    Some(paint.ink(ink, &text))
}

fn is_old(lane: &LaneStatus) -> bool {
    lane.oldest_age_seconds.is_some_and(|age| age > OLD)
}

fn table(lanes: &[&LaneStatus], paint: Paint) -> String {
    let mut table = Table::new(&[
        "LANE",
        "WAITING",
        "OLDEST",
        "FAILURES",
        "PAUSED UNTIL",
        "HELD BY",
    ]);
    for lane in lanes {
        let age = lane
            .oldest_age_seconds
            .map_or_else(|| "–".to_owned(), short);
        let old = if is_old(lane) { Ink::Red } else { Ink::Plain };
        let failures = if lane.failures > 0 {
            Ink::Yellow
        } else {
            Ink::Plain
        };
        let holder = lane.holder.as_deref().map_or_else(|| "–".to_owned(), safe);
        table.row(vec![
            format!("{} {}", lane.kind, lane.lane).into(),
            lane.waiting.to_string().into(),
            Cell::new(old, age),
            Cell::new(failures, lane.failures.to_string()),
            time_or_dash(lane.paused_until).into(),
            holder.into(),
        ]);
    }
    table.render(paint)
}
