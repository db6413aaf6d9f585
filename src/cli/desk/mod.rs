//! What an operator does about failed events, straight on the database: it works while the
//! service is down.

mod dead_letters;
mod decide;
mod edit;
mod erase;
mod explain;
mod moment;
mod redrives;
mod replay;
mod status;
mod text;
mod watch;
mod which;
mod work;

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::cli::output::{self, Paint};
use crate::clock::SystemClock;
use crate::config::StoreConfig;
use crate::desk::{By, Desk, DeskError};
use crate::error::BoxError;
use crate::store::{Store, lacks_its_file};

pub(super) use dead_letters::{DeadLettersCommand, dead_letters};
pub(super) use erase::{EraseArgs, erase};
pub(super) use explain::{ExplainArgs, explain};
pub(super) use redrives::{AuditArgs, RedrivesCommand, audit, redrives};
pub(super) use replay::{ReplayArgs, replay};
pub(super) use status::{StatusArgs, status};

/// Some events failed again, as an exit code: not 1, which says that the command failed.
const SOME_FAILED: u8 = 2;

/// How to print.
#[derive(Debug, Clone, Copy, Args)]
struct Form {
    /// Print JSON, as the HTTP route of the same name answers it.
    #[arg(long)]
    json: bool,
}

/// What every change has to say.
#[derive(Debug, Clone, Args)]
struct Change {
    /// Why; goes into the audit.
    #[arg(long, short = 'r', value_name = "TEXT")]
    reason: Option<String>,
    /// Who; goes into the audit. $USER when not given.
    #[arg(long = "as", value_name = "NAME", env = "HOOKYARD_ACTOR")]
    actor: Option<String>,
    /// Do not ask.
    #[arg(long, short = 'y')]
    yes: bool,
}

impl Change {
    /// Returns who and why.
    ///
    /// # Errors
    /// When no reason was given.
    fn by(&self) -> Result<By, BoxError> {
        let reason = self.reason.as_deref().map(str::trim).unwrap_or_default();
        if reason.is_empty() {
            return Err("say why with --reason: it goes into the audit".into());
        }
        Ok(By {
            actor: self.actor.clone().unwrap_or_else(user),
            reason: reason.to_owned(),
        })
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the name of whoever sits here is no configuration"
)]
fn user() -> String {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let name = set("HOOKYARD_ACTOR").or_else(|| set("USER"));
    name.unwrap_or_else(|| "cli".to_owned())
}

/// Says who wants to see what rows say.
fn looked_at() -> By {
    By {
        actor: user(),
        reason: "payload looked at".to_owned(),
    }
}

/// Opens the desk on `DATABASE_URL`.
///
/// # Errors
/// What is wrong with the configuration.
fn open() -> Result<Desk, BoxError> {
    // The database of a running `hookyard dev`, when nobody names another.
    #[cfg(feature = "sandbox")]
    let dev = crate::cli::dev::DevState::own_database();
    #[cfg(not(feature = "sandbox"))]
    let dev: Option<String> = None;
    let config = StoreConfig::from_env_or(dev.as_deref())?;
    if lacks_its_file(&config) {
        let why =
            "DATABASE_URL names a file that is not there: correct it, or run `hookyard migrate`";
        return Err(why.into());
    }
    let store = Store::connect(&config, SystemClock::shared())?;
    Ok(Desk::new(store, crate::cli::registry()?.describe()))
}

/// Prints an answer in the form asked for.
///
/// # Errors
/// None in practice: answers are plain data.
fn show<T: Serialize>(
    form: Form,
    answer: &T,
    for_people: impl FnOnce(&T, Paint) -> String,
) -> Result<ExitCode, BoxError> {
    match form.json {
        true => output::print(&serde_json::to_string_pretty(answer)?),
        false => output::print(&for_people(answer, Paint::of_stdout())),
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what the desk refused, and what to do about it.
fn told(error: DeskError) -> BoxError {
    match error {
        DeskError::Failed(cause) => output::database_trouble(&cause).into(),
        DeskError::NotFound("dead letter") => {
            "there is no such dead letter; `hookyard explain ID` takes any id, and names those of an event".into()
        }
        refused => refused.to_string().into(),
    }
}
