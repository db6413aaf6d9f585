//! `hookyard hasura`: what Hasura has to be told, and what its schema says.

mod compare;
mod connection;
mod crons;
mod export;
mod folder;
mod introspection;
mod metadata;
mod operations;
mod plan;
mod settings;
mod values;
mod wanted;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;

use self::connection::{Connection, ConnectionArgs};
use self::operations::Schema;
use self::plan::Plan;
use self::settings::Settings;
use self::wanted::Wanted;
use crate::cli;
use crate::cli::output::{self, Paint};
use crate::cli::prompt;
use crate::error::BoxError;

/// What differs, as an exit code: not 1, which says that the comparison failed.
const DIFFERS: u8 = 2;

/// What `hookyard hasura` can do.
#[derive(Subcommand)]
pub(super) enum HasuraCommand {
    /// Event and cron triggers, made of what the handlers take.
    #[command(subcommand)]
    Metadata(MetadataCommand),
    /// Print Hasura's GraphQL schema, found by introspection, in GraphQL's own language.
    ///
    /// Asks HASURA_GRAPHQL_URL with HASURA_ADMIN_SECRET. Sorted and without descriptions, so that
    /// two versions differ only where they mean something else. scripts/refresh-schema.sh puts it
    /// into graphql/schema.graphql.
    Schema(SchemaArgs),
    /// Check that the operations in graphql/ still fit a schema.
    ///
    /// Exits 0 when all fit, 2 when one does not, 1 when the check itself failed.
    Operations(OperationsArgs),
}

#[derive(Subcommand)]
pub(super) enum MetadataCommand {
    /// Print the triggers the handlers need, as files of a metadata folder (version 3).
    ///
    /// Each document starts with the path it belongs to. Merge event_triggers into the table's
    /// file: permissions and relationships in it are not known here.
    Export(ExportArgs),
    /// Show how the triggers of a live Hasura, or of a metadata folder, differ from what the
    /// handlers need.
    ///
    /// Asks the Hasura of HASURA_GRAPHQL_URL with HASURA_ADMIN_SECRET, unless --folder is given.
    /// Exits 0 when nothing differs, 2 when something does, 1 when the comparison failed.
    Diff(DiffArgs),
    /// Create and change triggers in a live Hasura, after showing the plan.
    ///
    /// Asks before it does anything; --yes is for pipelines. Never deletes a trigger, and never
    /// touches one that calls something else than --webhook-env unless --take-over names it.
    /// Exits 0 when all is as it should be, 1 when it is not.
    Apply(ApplyArgs),
}

#[derive(Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    settings: Settings,
    /// Print one JSON document in the shape of export_metadata instead of YAML.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct DiffArgs {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Compare with the metadata in this folder instead of a live Hasura.
    #[arg(long, value_name = "FOLDER", conflicts_with = "metadata_url")]
    folder: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct ApplyArgs {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Args)]
pub(super) struct SchemaArgs {
    /// Write to this file instead of the terminal.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Ask as this role: only what it may do is in its schema.
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
}

#[derive(Args)]
pub(super) struct OperationsArgs {
    /// Folder with the operations: every .graphql file but schema.graphql.
    #[arg(long, default_value = "graphql", value_name = "FOLDER")]
    operations: PathBuf,
    /// Schema to check against; schema.graphql of that folder when not given.
    #[arg(long, value_name = "FILE", conflicts_with = "live")]
    schema: Option<PathBuf>,
    /// Check against the Hasura of HASURA_GRAPHQL_URL.
    #[arg(long)]
    live: bool,
    /// Ask as this role: do the operations fit what it may do?
    #[arg(long, value_name = "ROLE", requires = "live")]
    role: Option<String>,
}

/// Runs one of the commands.
///
/// # Errors
/// What is wrong with configuration, files, or Hasura.
pub(super) async fn hasura(command: HasuraCommand) -> Result<ExitCode, BoxError> {
    match command {
        HasuraCommand::Metadata(MetadataCommand::Export(args)) => export(&args),
        HasuraCommand::Metadata(MetadataCommand::Diff(args)) => diff(&args).await,
        HasuraCommand::Metadata(MetadataCommand::Apply(args)) => apply(&args).await,
        HasuraCommand::Schema(args) => schema(&args).await,
        HasuraCommand::Operations(args) => operations(&args).await,
    }
}

/// What introspection is asked, for `hookyard check`.
pub(super) const INTROSPECTION: &str = introspection::QUERY;

/// Returns, for each operation, what does not fit the schema that introspection answered.
///
/// # Errors
/// When there is no schema in the answer, or an operation is no GraphQL.
pub(super) fn misfits(answer: Value, operations: &[&str]) -> Result<Vec<Vec<String>>, BoxError> {
    let schema = Schema::parse(&introspection::sdl(answer)?)?;
    let checked = operations.iter().map(|text| {
        let complaints = schema.check(text)?.into_iter();
        Ok(complaints.map(|complaint| complaint.what).collect())
    });
    checked.collect()
}

fn wanted() -> Result<Wanted, BoxError> {
    Ok(Wanted::by(&cli::registry()?))
}

fn export(args: &ExportArgs) -> Result<ExitCode, BoxError> {
    let wanted = wanted()?;
    let text = match args.json {
        true => serde_json::to_string_pretty(&export::as_json(&wanted, &args.settings))?,
        false => export::as_yaml(&wanted, &args.settings)?,
    };
    output::print(&text);
    Ok(ExitCode::SUCCESS)
}

async fn diff(args: &DiffArgs) -> Result<ExitCode, BoxError> {
    let metadata = match &args.folder {
        Some(folder) => folder::read(folder)?,
        None => Connection::open(&args.connection)?.export().await?.metadata,
    };
    let plan = Plan::make(&wanted()?, &args.settings, &metadata)?;
    output::print(&plan.render(Paint::of_stdout()));
    Ok(match plan.is_done() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(DIFFERS),
    })
}

async fn apply(args: &ApplyArgs) -> Result<ExitCode, BoxError> {
    let connection = Connection::open(&args.connection)?;
    let wanted = wanted()?;
    let before = connection.export().await?;
    let plan = Plan::make(&wanted, &args.settings, &before.metadata)?;
    output::print(&plan.render(Paint::of_stdout()));
    if plan.has_problems() {
        return Err("nothing was changed: mend what is in the way first".into());
    }
    let commands = plan.commands();
    if commands.is_empty() {
        output::print("nothing to do");
        return Ok(ExitCode::SUCCESS);
    }
    prompt::confirm("apply this?", args.yes)?;
    connection.apply(&commands, before.resource_version).await?;
    let after = connection.export().await?.metadata;
    let after = Plan::make(&wanted, &args.settings, &after)?;
    if after.commands().is_empty() {
        let done = commands.len();
        output::print(&format!("applied; {done} triggers created or changed"));
        return Ok(ExitCode::SUCCESS);
    }
    output::print(&after.render(Paint::of_stdout()));
    Err("Hasura took the commands, but the triggers still differ".into())
}

async fn live_schema(role: Option<&str>) -> Result<String, BoxError> {
    let connection = Connection::open(&ConnectionArgs::default())?;
    introspection::sdl(connection.query(introspection::QUERY, role).await?)
}

async fn schema(args: &SchemaArgs) -> Result<ExitCode, BoxError> {
    let sdl = live_schema(args.role.as_deref()).await?;
    // What is written has to be readable again, or a schema would be replaced by rubbish.
    Schema::parse(&sdl).map_err(|_| "the schema cannot be written as GraphQL")?;
    match &args.output {
        Some(path) => {
            let fail = |error| format!("{}: {error}", path.display());
            std::fs::write(path, sdl).map_err(fail)?;
        }
        None => output::print(&sdl),
    }
    Ok(ExitCode::SUCCESS)
}

async fn operations(args: &OperationsArgs) -> Result<ExitCode, BoxError> {
    let beside = args.operations.join("schema.graphql");
    let path = args.schema.as_deref().unwrap_or(&beside);
    let text = match args.live {
        true => live_schema(args.role.as_deref()).await?,
        false => read(path)?,
    };
    let schema = Schema::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut files: Vec<PathBuf> = std::fs::read_dir(&args.operations)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(|error| format!("{}: {error}", args.operations.display()))?;
    files.retain(|file| {
        file.extension().is_some_and(|end| end == "graphql")
            && file
                .file_name()
                .is_some_and(|name| name != "schema.graphql")
    });
    files.sort();
    let mut complaints = 0;
    for file in &files {
        let name = file.display();
        let text = read(file)?;
        let found = schema
            .check(&text)
            .map_err(|error| format!("{name}: {error}"))?;
        complaints += found.len();
        for complaint in found {
            output::print(&format!("{name}:{}: {}", complaint.line, complaint.what));
        }
    }
    let count = files.len();
    if count == 0 {
        return Err(format!("{} holds no operations", args.operations.display()).into());
    }
    if complaints > 0 {
        output::print(&format!("{complaints} things do not fit, in {count} files"));
        return Ok(ExitCode::from(DIFFERS));
    }
    output::print(&format!("{count} files of operations fit the schema"));
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<String, BoxError> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()).into())
}
