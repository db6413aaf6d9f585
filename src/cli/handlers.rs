//! `hookyard handlers`: which handlers take which events.

use std::process::ExitCode;

use clap::Args;

use crate::cli;
use crate::cli::output::{self, Cell, Ink, Paint, Table};
use crate::error::BoxError;
use crate::pipeline::HandlerInfo;

/// What `hookyard handlers` takes.
#[derive(Args)]
pub(super) struct HandlersArgs {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Prints the registry.
///
/// # Errors
/// When two handlers hide each other.
pub(super) fn handlers(args: &HandlersArgs) -> Result<ExitCode, BoxError> {
    let infos = cli::registry()?.describe();
    if args.json {
        output::print(&serde_json::to_string_pretty(&infos)?);
    } else {
        output::print(&table(&infos, Paint::of_stdout()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the registry as a table.
pub(super) fn table(infos: &[HandlerInfo], paint: Paint) -> String {
    let mut table = Table::new(&["EVENT TYPE", "CONDITION", "HANDLER", "WHAT IT DOES"]);
    for info in infos {
        table.row(vec![
            info.event_types.join("\n").into(),
            Cell::new(Ink::Dim, info.condition.clone()),
            Cell::new(Ink::Green, info.handler),
            info.about.into(),
        ]);
    }
    table.render(paint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Registry;

    #[test]
    fn every_handler_of_the_reference_service_is_in_the_table() {
        let mut registry = Registry::new();
        crate::handlers::register(&mut registry).unwrap();
        let infos = registry.describe();

        let table = table(&infos, Paint::none());

        for info in &infos {
            assert!(
                table.contains(info.handler) && table.contains(info.about),
                "{table}"
            );
        }
    }
}
