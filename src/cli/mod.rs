//! The command line: one file per command. A team's own `main` has all of it with [`main`].

mod bridge;
mod check;
mod desk;
#[cfg(feature = "sandbox")]
mod dev;
mod handlers;
mod hasura;
mod migrate;
mod output;
mod progress;
mod prompt;
#[cfg(feature = "sandbox")]
mod send;
mod serve;

use std::process::ExitCode;
use std::sync::OnceLock;

use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::error::BoxError;
use crate::pipeline::{Registry, RegistryError};

type Register = Box<dyn Fn(&mut Registry) -> Result<(), RegistryError> + Send + Sync>;

/// Whose handlers the commands speak of. Set once, before any of them runs.
static HANDLERS: OnceLock<Register> = OnceLock::new();

/// Event handler service for Hasura event triggers behind Google Pub/Sub push.
#[derive(Parser)]
#[command(
    name = "hookyard",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve push requests, configured by environment variables.
    ///
    /// Refuses to start when a required variable is missing, and names all of them at once;
    /// `hookyard variables` lists what can be set. Ends on SIGTERM or Ctrl-C after the events in
    /// flight have ended.
    Serve,
    /// Check the configuration, everything the service depends on, and the chain around it.
    ///
    /// Asks for the token issuer's keys, asks Hasura and Chargebee harmless questions, looks both
    /// topics up; compares Hasura's triggers with the handlers and the operations with Hasura's
    /// schema; and with Google credentials looks at push subscription, dead letters, rights and the
    /// Cloud Run service. Each finding comes with the command that mends it; nothing is changed
    /// anywhere. What may not be looked at is skipped. Exits 1 when something has to be mended.
    /// docs/CHECK.md lists what is looked at.
    Check(Box<check::CheckArgs>),
    #[cfg(feature = "sandbox")]
    Dev(dev::DevArgs),
    #[cfg(feature = "sandbox")]
    Send(Box<send::SendArgs>),
    /// Serve Hasura's webhooks on POST /hasura/events and publish each to a topic.
    ///
    /// Hasura cannot publish to Pub/Sub by itself: point its event and cron triggers here. Needs
    /// BRIDGE_SECRET (Hasura sends it in the header x-hookyard-secret), BRIDGE_TOPIC and, for a
    /// short topic name, GOOGLE_CLOUD_PROJECT. Takes BRIDGE_KEY_COLUMNS, BRIDGE_TIMEOUT_MS and
    /// what `serve` takes about listening, logging and the broker; no Chargebee, no Hasura.
    ///
    /// Answers 200 only after the broker has confirmed, else 503 with Retry-After, which Hasura
    /// honours for as long as it takes. docs/HASURA.md goes from zero to events flowing.
    Bridge,
    /// Bring the tables of DATABASE_URL up to date.
    ///
    /// `serve` does it at start unless MIGRATE_ON_START=false. Several may run at once; tables of
    /// a newer program are left as they are.
    Migrate(migrate::MigrateArgs),
    /// Find, understand, retry and discard failed events.
    ///
    /// Works on DATABASE_URL alone, also while the service is down.
    #[command(subcommand)]
    DeadLetters(Box<desk::DeadLettersCommand>),
    /// Show and stop redrives and replays.
    #[command(subcommand)]
    Redrives(desk::RedrivesCommand),
    /// Run processed events of the `events` table again, after showing what that would do.
    ///
    /// An instance of the service runs them; this command only shows how far it is, and may be
    /// left. Exits 0 when all ended well, 2 when some failed.
    Replay(Box<desk::ReplayArgs>),
    /// Tell what happened to an id: what came in, what each handler did, what went out, and why
    /// something did not.
    Explain(desk::ExplainArgs),
    /// Show what waits, for how long, and what failed.
    Status(desk::StatusArgs),
    /// Show who changed what through the desk, and why.
    Audit(desk::AuditArgs),
    /// Take out what was kept about somebody, wherever it is mentioned, or about one event.
    ///
    /// Payloads, original bytes, attributes and keys go; ids, times and outcomes stay. What waits
    /// in the `events` table about them is not run any more, open dead letters are discarded.
    /// Backups, what was published and the team's own tables are not touched.
    Erase(desk::EraseArgs),
    /// Show which handlers take which events.
    Handlers(handlers::HandlersArgs),
    /// Make Hasura's triggers fit the handlers, and the operations Hasura's schema.
    #[command(subcommand)]
    Hasura(Box<hasura::HasuraCommand>),
    /// List every environment variable as a Markdown table.
    Variables,
}

/// Runs the command line of the process over the handlers that `register` adds.
///
/// Makes a `main` of one line, for the reference service as for any other:
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     hookyard::cli::main(hookyard::handlers::register)
/// }
/// ```
///
/// `register` is called whenever a command needs the handlers, so it should do nothing else; what
/// is wrong with the list is said by the command. `dev --once` and `dev --chaos` play the handlers
/// of [`crate::handlers`], whatever is registered here: they know what has to come of those.
pub fn main<F>(register: F) -> ExitCode
where
    F: Fn(&mut Registry) -> Result<(), RegistryError> + Send + Sync + 'static,
{
    if HANDLERS.set(Box::new(register)).is_err() {
        return output::fail("the command line runs once in a process");
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Not clap's own 2, which says "something differs" here.
            error.print().ok();
            return match error.use_stderr() {
                true => ExitCode::FAILURE,
                false => ExitCode::SUCCESS,
            };
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&format!("cannot start: {error}")),
    };
    let ended = runtime.block_on(run(cli.command));
    // What is still running was given its grace; nothing waits for it any longer.
    runtime.shutdown_background();
    ended.unwrap_or_else(|error| output::fail(&error.to_string()))
}

/// Registers the handlers of this program.
///
/// # Errors
/// When one does not fit.
fn register(registry: &mut Registry) -> Result<(), RegistryError> {
    HANDLERS.get().map_or(Ok(()), |handlers| handlers(registry))
}

/// Returns the handlers of this program.
///
/// # Errors
/// When one does not fit.
fn registry() -> Result<Registry, RegistryError> {
    let mut registry = Registry::new();
    register(&mut registry)?;
    Ok(registry)
}

async fn run(command: Command) -> Result<ExitCode, BoxError> {
    match command {
        Command::Serve => Box::pin(serve::serve()).await,
        Command::Check(args) => check::check(&args).await,
        #[cfg(feature = "sandbox")]
        Command::Dev(args) => Box::pin(dev::dev(args)).await,
        #[cfg(feature = "sandbox")]
        Command::Send(args) => send::send(*args).await,
        Command::Bridge => Box::pin(bridge::bridge()).await,
        Command::Migrate(args) => migrate::migrate(&args).await,
        Command::DeadLetters(command) => desk::dead_letters(*command).await,
        Command::Redrives(command) => desk::redrives(command).await,
        Command::Replay(args) => desk::replay(*args).await,
        Command::Explain(args) => desk::explain(&args).await,
        Command::Erase(args) => desk::erase(args).await,
        Command::Status(args) => desk::status(&args).await,
        Command::Audit(args) => desk::audit(&args).await,
        Command::Handlers(args) => handlers::handlers(&args),
        Command::Hasura(command) => hasura::hasura(*command).await,
        Command::Variables => {
            output::print(&Config::variables_as_markdown());
            Ok(ExitCode::SUCCESS)
        }
    }
}
