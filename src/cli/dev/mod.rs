//! `hookyard dev`: the service with embedded defaults, and everything it talks to beside it.

mod chaos;
mod instance;
mod oracle;
mod plan;
mod render;
mod samples;
mod siege;
mod state;
mod world;

use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::SignalKind;

pub(crate) use self::render::trace as render_trace;
use self::samples::{Ended, SAMPLES};
pub(crate) use self::state::DevState;
use self::world::{Setup, World};
use super::output::{self, Cell, Ink, Paint, Table};
use crate::cli;
use crate::error::BoxError;
use crate::sandbox::{ADMIN_TOKEN, TOPIC};

/// Serve with embedded defaults, and play Pub/Sub, Chargebee and Hasura beside it.
///
/// Starts the service and the sandbox: a token issuer, a Pub/Sub pusher with redelivery, stateful
/// Chargebee and Hasura stand-ins. Token verification is on. Runs one sample event, shows what
/// the service did, and stays up until Ctrl-C with commands to go on.
///
/// The service listens on PORT or 8080, the sandbox on 8090; a free port is taken when one of
/// them is in use. With PUBSUB_EMULATOR_HOST set, the real emulator takes the pusher's place.
#[derive(Debug, Args)]
pub(super) struct DevArgs {
    /// Run every sample, show what happened, and end: 0 if each ended as it has to, else 1. As
    /// `--chaos`, with the handlers that come with Hookyard, whatever this program's own are.
    #[arg(long, conflicts_with = "chaos")]
    once: bool,

    /// Duplicate, reorder, delay and fail at random, then say whether anything was lost or done
    /// twice: 0 if not, else 1.
    #[arg(long)]
    chaos: bool,

    /// How many events `--chaos` sends.
    #[arg(long, default_value_t = 500, value_name = "N", requires = "chaos",
          value_parser = clap::value_parser!(u32).range(1..=20_000))]
    events: u32,

    /// Where `--chaos` gets its chances from; printed, so that a run can be repeated.
    #[arg(long, value_name = "S", requires = "chaos")]
    seed: Option<u64>,

    /// Let `--chaos` run services of their own processes on this PostgreSQL (postgres://…) or SQLite
    /// (sqlite://FILE). In it, or beside it, an own database is made, and dropped if all went well.
    #[arg(long, value_name = "URL", requires = "chaos")]
    database: Option<String>,

    /// How many services share the database.
    #[arg(long, default_value_t = 1, value_name = "N", requires = "database",
          value_parser = clap::value_parser!(u8).range(1..=8))]
    instances: u8,

    /// How often one of them is killed, dies at a point where it hurts, or is stopped for longer
    /// than its leases last.
    #[arg(long, default_value_t = 0, value_name = "K", requires = "database",
          value_parser = clap::value_parser!(u32).range(0..=200))]
    kills: u32,

    /// Be one of the services of `--chaos`, beside the sandbox at this URL.
    #[arg(long, hide = true, value_name = "URL", conflicts_with_all = ["chaos", "once"])]
    instance: Option<String>,
}

/// Runs `hookyard dev`.
///
/// # Errors
/// When no port can be had, the emulator is away, or the service cannot be put together.
pub(super) async fn dev(args: DevArgs) -> Result<ExitCode, BoxError> {
    if let Some(sandbox) = &args.instance {
        return instance::run(sandbox).await;
    }
    let paint = Paint::of_stdout();
    if args.chaos {
        let seed = args
            .seed
            .unwrap_or_else(|| u64::from(rand::random::<u32>()));
        let Some(database) = args.database else {
            return chaos::run(args.events, seed, paint).await;
        };
        let siege = siege::Siege {
            events: args.events,
            seed,
            database,
            instances: usize::from(args.instances),
            kills: args.kills,
        };
        return siege::run(siege, paint).await;
    }
    if args.once {
        once(paint).await
    } else {
        stay(paint).await
    }
}

/// Runs every sample and ends.
async fn once(paint: Paint) -> Result<ExitCode, BoxError> {
    let setup = Setup {
        service_port: 0,
        sandbox_port: 0,
        log_level: "off",
        handlers: crate::handlers::register,
    };
    let mut world = World::start(setup).await?;
    output::print(&banner(&world, paint));
    let mut failed = 0;
    for sample in SAMPLES {
        let title = format!("{}: {}", sample.name, sample.about);
        output::print(&format!("\n{}", paint.ink(Ink::Bold, &title)));
        let ended = samples::run(&mut world, sample).await?;
        failed += usize::from(!ended.complaints.is_empty());
        output::print(&show(&ended, paint));
    }
    let first = &SAMPLES[0];
    let title = format!("{} once more: a duplicate, nothing happens", first.name);
    output::print(&format!("\n{}", paint.ink(Ink::Bold, &title)));
    let ended = samples::run_again(&mut world, first).await?;
    failed += usize::from(!ended.complaints.is_empty());
    output::print(&show(&ended, paint));
    world.service.shutdown().await;

    let total = SAMPLES.len() + 1;
    let verdict = match failed {
        0 => paint.ink(Ink::Green, &format!("all {total} ended as they have to")),
        _ => paint.ink(
            Ink::Red,
            &format!("{failed} of {total} did not end as they have to"),
        ),
    };
    output::print(&format!("\n{verdict}"));
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs one sample and stays up until Ctrl-C.
async fn stay(paint: Paint) -> Result<ExitCode, BoxError> {
    let setup = Setup {
        service_port: 8080,
        sandbox_port: 8090,
        log_level: "info",
        handlers: cli::register,
    };
    let handlers = cli::registry()?.describe();
    let knows_samples = (handlers.iter()).any(|info| info.handler == samples::FIRST_HANDLER);
    let world = World::start(setup).await?;
    let state = DevState {
        service: world.service.address,
        sandbox: world.sandbox.address(),
        database: world.database.as_ref().map(|database| database.url()),
    };
    state.write();
    output::print(&banner(&world, paint));
    if knows_samples {
        let title = format!("One event on its way ({}):", samples::FIRST.about);
        output::print(&format!("\n{}", paint.ink(Ink::Bold, &title)));
        for trace in world.run(&samples::first_with_fresh_ids()).await? {
            output::print(&render_trace(&trace, paint));
        }
    } else {
        output::print(&format!("\n{}", cli::handlers::table(&handlers, paint)));
    }
    output::print(&next_steps(&world, knows_samples, paint));
    stop_signal().await?;
    output::print("\nshutting down");
    state.remove();
    world.service.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

/// Waits for Ctrl-C or SIGTERM.
async fn stop_signal() -> std::io::Result<()> {
    let mut terminate = tokio::signal::unix::signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}

fn banner(world: &World, paint: Paint) -> String {
    let service = format!("http://{}", world.service.address);
    let sandbox = world.sandbox.url();
    let mut table = Table::new(&["", "ADDRESS", ""]);
    for (name, address, about) in [
        (
            "service",
            format!("{service}/push"),
            "takes signed pushes only",
        ),
        ("sandbox", sandbox.clone(), "this page lists its paths"),
        (
            "  token issuer",
            format!("{sandbox}/oauth2/v3/certs"),
            "a fresh RSA key",
        ),
        (
            "  Pub/Sub",
            format!("{sandbox}/publish?topic={TOPIC}"),
            world.bus_name(),
        ),
        (
            "  Chargebee",
            format!("{sandbox}/api/v2"),
            "rows and idempotency keys",
        ),
        ("  Hasura", format!("{sandbox}/v1/graphql"), "rows"),
        (
            "  journal",
            format!("{sandbox}/journal"),
            "every request they saw",
        ),
    ] {
        table.row(vec![
            name.into(),
            Cell::new(Ink::Green, address),
            Cell::new(Ink::Dim, about),
        ]);
    }
    let title = format!("Hookyard {} and its sandbox", env!("CARGO_PKG_VERSION"));
    let title = paint.ink(Ink::Bold, &title);
    let mut out = format!("{title}\n\n{}", table.render(paint));
    if let Some(database) = &world.database {
        // A path that would widen the whole table.
        let url = paint.ink(Ink::Green, &database.url());
        let about = paint.ink(Ink::Dim, "what the service owes; gone when it ends");
        out.push_str(&format!("database        {about}\n                {url}\n"));
    }
    out
}

fn next_steps(world: &World, knows_samples: bool, paint: Paint) -> String {
    let service = format!("http://{}", world.service.address);
    let sandbox = world.sandbox.url();
    let mut steps = match knows_samples {
        true => vec![
            (
                "send a sample",
                "cargo run -- send examples/events/contract_activated.json".to_owned(),
            ),
            (
                "send a row of your own",
                "echo '{\"id\":\"c-1\",\"subscription_id\":\"sub_1\",\"status\":\"active\"}' | \
                 cargo run -- send - --op update"
                    .to_owned(),
            ),
        ],
        false => vec![(
            "send a row; a file with a whole event goes, too",
            "echo '{\"id\":\"1\"}' | cargo run -- send - --op update --table SCHEMA.TABLE"
                .to_owned(),
        )],
    };
    if knows_samples && !world.is_emulator() {
        let file = "examples/events/contract_cancelled.json";
        let publish = format!("curl --data-binary @{file} '{sandbox}/publish?topic={TOPIC}'");
        steps.push(("publish, with redelivery", publish));
    }
    steps.extend([
        ("is it alive", format!("curl {service}/health")),
        (
            "metrics",
            format!("curl -H 'authorization: Bearer {ADMIN_TOKEN}' {service}/metrics"),
        ),
        (
            "what Chargebee saw",
            format!("curl '{sandbox}/journal?upstream=chargebee'"),
        ),
        (
            "a push without a token",
            format!("curl -i -X POST {service}/push -d '{{}}'"),
        ),
        (
            "an event that fails, and what the desk says of it",
            "echo '{\"id\":' | cargo run -- send - --raw; cargo run -- dead-letters list"
                .to_owned(),
        ),
        ("what waits", "cargo run -- status".to_owned()),
    ]);
    if !knows_samples {
        return listed(&steps, paint);
    }
    steps.extend([
        (
            "an event of the community",
            "cargo run -- send examples/events/community/user_verified.json".to_owned(),
        ),
        ("break things", "cargo run -- dev --chaos".to_owned()),
    ]);
    if let Some(database) = &world.database {
        let produce = format!("DATABASE_URL={} scripts/produce-events.sh", database.url());
        steps.push(("a hundred of them, into the table", produce));
    }
    listed(&steps, paint)
}

fn listed(steps: &[(&str, String)], paint: Paint) -> String {
    let mut out = format!("\n{}\n", paint.ink(Ink::Bold, "Go on in another terminal:"));
    for (about, command) in steps {
        let about = paint.ink(Ink::Dim, &format!("# {about}"));
        out.push_str(&format!("  {about}\n  {command}\n"));
    }
    out.push_str("\nCtrl-C ends it.\n");
    out
}

/// Shows how a sample ended.
fn show(ended: &Ended, paint: Paint) -> String {
    let mut out: String = ended
        .traces
        .iter()
        .map(|trace| render_trace(trace, paint))
        .collect();
    for event in &ended.emitted {
        let line = format!("followed by {}", event.attribute("ce-type"));
        out.push_str(&format!("  {}\n", paint.ink(Ink::Green, &line)));
    }
    for letter in &ended.dead_letters {
        let reason = letter.attribute("hookyard-reason");
        let line = format!("kept as a dead letter with its bytes: {reason}");
        out.push_str(&format!("  {}\n", paint.ink(Ink::Yellow, &line)));
    }
    for complaint in &ended.complaints {
        out.push_str(&format!(
            "  {}\n",
            paint.ink(Ink::Red, &format!("not so: {complaint}"))
        ));
    }
    if ended.complaints.is_empty() {
        out.push_str(&format!("  {}\n", paint.ink(Ink::Green, "as it has to be")));
    }
    out
}
