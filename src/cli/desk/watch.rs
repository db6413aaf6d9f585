//! Stays with long work until it is over.

use std::process::ExitCode;
use std::time::Duration;

use super::redrives::detail_for_people;
use super::{Form, SOME_FAILED, show, told};
use crate::cli::progress::{At, Progress};
use crate::clock::{Clock, SystemClock};
use crate::desk::{Desk, Redrive};
use crate::error::BoxError;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(400);

/// How long nobody may have taken it up before the wait is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Stays with work that was begun until it is over, unless it is to be left alone.
///
/// # Errors
/// As [`watch`].
pub(super) async fn follow(
    desk: &Desk,
    begun: Redrive,
    detach: bool,
    form: Form,
) -> Result<ExitCode, BoxError> {
    match detach {
        true => leave(&begun, form),
        false => watch(desk, begun, form).await,
    }
}

/// Shows how far a redrive or replay is until it is over, then what came of it.
///
/// Ending this process does not end the work.
///
/// # Errors
/// When the database is away, or no instance of the service takes the work up.
pub(super) async fn watch(desk: &Desk, begun: Redrive, form: Form) -> Result<ExitCode, BoxError> {
    let clock = SystemClock;
    let started = clock.monotonic();
    let id = begun.id.clone();
    let before = ended(&begun);
    let mut progress = Progress::new();
    let mut now = begun;
    let mut moved = started;
    while now.state == "running" {
        let elapsed = clock.monotonic().saturating_duration_since(started);
        let waits = !now.in_hand && ended(&now) == before;
        let note = match (waits, now.failed) {
            (true, _) => "waiting for an instance of the service".to_owned(),
            (false, 0) => String::new(),
            (false, failed) => format!("{failed} failed again"),
        };
        let at = At {
            ended: ended(&now),
            total: u64::try_from(now.total).unwrap_or(0),
            elapsed,
            before,
        };
        progress.show(at, &note);
        let idle = clock.monotonic().saturating_duration_since(moved);
        if !now.in_hand && idle > PATIENCE {
            progress.clear();
            return Err(format!(
                "no instance of the service works on this database at present; {id} begins, or \
                 goes on, as soon as one does (`hookyard redrives show {id}`)"
            )
            .into());
        }
        clock.sleep(PAUSE).await;
        let next = desk.redrive_detail(&id).await.map_err(told)?.redrive;
        if next.in_hand || ended(&next) != ended(&now) {
            moved = clock.monotonic();
        }
        now = next;
    }
    progress.clear();
    let detail = desk.redrive_detail(&id).await.map_err(told)?;
    show(form, &detail, detail_for_people)?;
    Ok(match detail.redrive.failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(SOME_FAILED),
    })
}

/// Says where it can be looked at, and goes.
fn leave(begun: &Redrive, form: Form) -> Result<ExitCode, BoxError> {
    show(form, begun, |begun, _| {
        format!(
            "{} begun; `hookyard redrives show {0}` shows how far it is, `hookyard redrives abort \
             {0}` stops it",
            begun.id
        )
    })
}

fn ended(redrive: &Redrive) -> u64 {
    u64::try_from(redrive.ended()).unwrap_or(0)
}
