//! Long work on many events, as `dead-letters redrive` and `replay` begin it: shown first, asked
//! about, begun, and watched.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::text::{Facts, count, cut, indent};
use super::watch::follow;
use super::{Change, Form, show, told};
use crate::cli::output::{self, Ink, Paint};
use crate::cli::prompt;
use crate::desk::{By, Desk, DeskResult, Redrive, Share};
use crate::error::BoxError;

/// How long work is begun.
#[derive(Args)]
pub(super) struct Work {
    /// Events per second; 20 when not given.
    #[arg(long, value_name = "N")]
    pub(super) per_second: Option<i64>,
    /// Only show what it would do.
    #[arg(long)]
    dry_run: bool,
    /// Do not wait for the end.
    #[arg(long)]
    detach: bool,
    /// A name for this request: given again, it finds the work it began.
    #[arg(long, value_name = "NAME")]
    pub(super) request_id: Option<String>,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    form: Form,
}

/// What would be done, were it begun now.
pub(super) struct Plan<'a, P> {
    /// The answer of the desk.
    pub(super) preview: &'a P,
    /// How many events it takes.
    pub(super) count: i64,
    /// What one of them is called.
    pub(super) one: &'static str,
    /// Renders the preview.
    pub(super) for_people: fn(&P, Paint) -> String,
}

impl Work {
    /// Shows what would be done, asks, begins it, and stays until it is over.
    ///
    /// # Errors
    /// What the desk refused, or that nobody said yes.
    pub(super) async fn carry_out<P: Serialize>(
        &self,
        desk: &Desk,
        plan: Plan<'_, P>,
        begin: impl AsyncFnOnce(By) -> DeskResult<Redrive>,
    ) -> Result<ExitCode, BoxError> {
        if self.dry_run {
            return show(self.form, plan.preview, plan.for_people);
        }
        let by = self.change.by()?;
        // Asked for under a name it may have begun before, and have taken them all.
        let nothing = plan.count == 0 && self.request_id.is_none();
        if nothing {
            return show(self.form, plan.preview, plan.for_people);
        }
        if !self.form.json {
            output::print(&(plan.for_people)(plan.preview, Paint::of_stdout()));
        }
        let what = count(plan.count, plan.one);
        prompt::confirm(&format!("run {what} again?"), self.change.yes)?;
        let begun = begin(by).await.map_err(told)?;
        follow(desk, begun, self.detach, self.form).await
    }
}

/// Renders how many there are, what is known of them all, and the first few.
pub(super) fn preview(
    (all, one): (i64, &str),
    facts: &Facts,
    (sample, shown): (&str, usize),
    paint: Paint,
) -> String {
    let title = paint.ink(Ink::Bold, &count(all, one));
    let mut out = format!("{title}\n{}{}", facts.render(paint), indent(sample, "  "));
    let more = all - i64::try_from(shown).unwrap_or(0);
    if more > 0 {
        let line = format!("  … and {more} more");
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
