//! `hookyard migrate`: brings the tables up to date.

use std::process::ExitCode;

use clap::Args;

use crate::cli::output;
use crate::clock::SystemClock;
use crate::config::StoreConfig;
use crate::error::BoxError;
use crate::store::{Migrations, Store};

/// What `hookyard migrate` takes.
#[derive(Args)]
pub(super) struct MigrateArgs {
    /// Only show what is there and what is missing. Exits 2 when something is missing.
    #[arg(long)]
    dry_run: bool,
}

/// What is missing, as an exit code.
const MISSING: u8 = 2;

/// Migrates.
///
/// # Errors
/// When the database is away or refuses.
pub(super) async fn migrate(args: &MigrateArgs) -> Result<ExitCode, BoxError> {
    let config = StoreConfig::from_env()?;
    let store = Store::connect(&config, SystemClock::shared())?;
    let before = store
        .migrations()
        .await
        .map_err(|error| output::database_trouble(&error))?;
    if !args.dry_run {
        store.migrate().await?;
    }
    let after = store
        .migrations()
        .await
        .map_err(|error| output::database_trouble(&error))?;
    store.close().await;
    output::print(&report(&before, &after));
    let missing = after.known.iter().any(|migration| !migration.applied);
    Ok(match missing {
        true => ExitCode::from(MISSING),
        false => ExitCode::SUCCESS,
    })
}

fn report(before: &Migrations, after: &Migrations) -> String {
    let mut out = String::new();
    for (was, is) in before.known.iter().zip(&after.known) {
        let state = match (was.applied, is.applied) {
            (true, _) => "was there",
            (false, true) => "applied",
            (false, false) => "missing",
        };
        out.push_str(&format!("{:04} {}: {state}\n", is.version, is.name));
    }
    if after.newer > 0 {
        out.push_str("the database is newer than this program, which works with it as it is\n");
    }
    out
}
