//! `hookyard dev --chaos`: everything that can go wrong at once, then a verdict.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::oracle::{Seen, Verdict, judge};
use super::plan::{Action, Kind, Plan};
use super::siege::Pace;
use super::world::{configure, listen, wait_until_ready};
use crate::app::{App, Running};
use crate::brokers::MemoryBroker;
use crate::cli::output::{self, Ink, Paint, Table};
use crate::config::BusConfig;
use crate::error::BoxError;
use crate::sandbox::{Did, Fault, FlakyBroker, PushSubscription, Pusher, Reply, Sandbox, TOPIC};
use crate::telemetry;

/// How long everything may take to settle once the faults have ended.
const SETTLE: Duration = Duration::from_secs(60);

/// How long faults go on after the last event was published.
const LINGER: Duration = Duration::from_secs(3);

/// Complaints shown of each kind.
const SHOWN: usize = 10;

/// A service among unreliable neighbours.
struct Stage {
    sandbox: Sandbox,
    service: Running,
    broker: FlakyBroker,
    topics: BusConfig,
    _logs: telemetry::Guard,
}

/// Plays a history and says whether the rules held.
pub(super) async fn run(events: u32, seed: u64, paint: Paint) -> Result<ExitCode, BoxError> {
    let started = Instant::now();
    let plan = Plan::draw(events, seed);
    let title = format!(
        "chaos: seed {seed}, {events} events, {} of them poison",
        plan.poison()
    );
    output::print(&paint.ink(Ink::Bold, &title));
    let stage = set_up(&plan, seed).await?;
    play(&plan, stage.sandbox.pusher(), &Pace::start(), usize::MAX).await?;
    heal(&stage);
    let settled = tokio::time::timeout(SETTLE, stage.sandbox.pusher().idle()).await;

    let broker = stage.broker.broker();
    let topics = &stage.topics;
    let seen = Seen {
        sandbox: &stage.sandbox,
        journal: stage.sandbox.journal().entries(),
        records: stage.sandbox.pusher().records(),
        emitted: broker.published(&topics.events_topic),
        dead_letters: broker.published(&topics.dead_letter_topic),
        faults: stage.sandbox.chargebee().faults().hits()
            + stage.sandbox.hasura().faults().hits()
            + stage.broker.faults().hits(),
    };
    let mut verdict = judge(&plan, &seen);
    if settled.is_err() {
        let pending = stage.sandbox.pusher().pending();
        verdict
            .lost
            .push(format!("{pending} messages are still not acknowledged"));
    }
    output::print(&counts(&plan, &seen, &verdict, &stage, paint));
    output::print(&rules(&verdict, false, paint));
    output::print(&format!(
        "\n{:.1} s; the same again: hookyard dev --chaos --events {events} --seed {seed}",
        started.elapsed().as_secs_f64()
    ));
    let good = verdict.good();
    stage.service.shutdown().await;
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Starts the service with short waits, and its neighbours with their rows and faults.
async fn set_up(plan: &Plan, seed: u64) -> Result<Stage, BoxError> {
    let sandbox = Sandbox::builder()
        .variable("ACK_DEADLINE_MS", "6000")
        .variable("HANDLER_TIMEOUT_MS", "5000")
        .start()
        .await?;
    seed_neighbours(plan, &sandbox);
    let config = configure(&sandbox, "off")?;
    let logs = telemetry::Logs::new(&config.log, None)
        .layer(sandbox.traces().layer())
        .install()?;
    let broker = FlakyBroker::new(MemoryBroker::new());
    let listener = listen(0, true).await?;
    let address = listener.local_addr()?;
    let topics = config.bus.clone();
    let app = App::builder()
        .config(config)
        .handlers(crate::handlers::register)
        .client_policy(super::instance::impatient())
        .publisher(Arc::new(broker.clone()));
    let service = app.build().await?.start(listener)?;
    wait_until_ready(service.address).await?;
    sandbox.pass_on_to(address);
    sandbox.pusher().subscribe(PushSubscription {
        audience: crate::sandbox::AUDIENCE.to_owned(),
        service_account: crate::sandbox::SERVICE_ACCOUNT.to_owned(),
        // Shorter than a handler may take, so that deliveries of one event overlap.
        ack_deadline: Duration::from_millis(1500),
        min_backoff: Duration::from_millis(50),
        max_backoff: Duration::from_millis(800),
        ..PushSubscription::new("chaos-push", TOPIC, &format!("http://{address}/push"))
    });
    break_things(&sandbox, &broker, seed);
    Ok(Stage {
        sandbox,
        service,
        broker,
        topics,
        _logs: logs,
    })
}

/// Gives the neighbours the rows that the history is about.
pub(super) fn seed_neighbours(plan: &Plan, sandbox: &Sandbox) {
    for event in &plan.events {
        match event.kind {
            Kind::Activate | Kind::Cancel => {
                sandbox.chargebee().seed_subscription(&event.subscription);
                sandbox.hasura().seed_contract(&event.subject, "active");
            }
            Kind::CustomerChange => {
                let row = serde_json::json!({"first_name": "Old", "email": "someone@example.com"});
                sandbox.chargebee().seed_customer(&event.subject, row);
            }
            Kind::Poison(_) => sandbox.hasura().seed_contract(&event.subject, "active"),
            _ => {}
        }
    }
}

/// Gives every neighbour its faults. All of them pass: none is a reason to give an event up.
pub(super) fn break_things(sandbox: &Sandbox, broker: &FlakyBroker, seed: u64) {
    let html =
        Reply::text(502, "<html><h1>502 Bad Gateway</h1></html>").with("content-type", "text/html");
    let common = [
        Fault::Answer(html.clone()),
        Fault::AnswerAfter(html),
        Fault::status(503),
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::ResetAfter,
        Fault::CutShort,
        Fault::Slow(Duration::from_millis(300)),
        Fault::SlowAnswer(Duration::from_millis(900)),
        Fault::HangAfter,
    ];
    let mut chargebee = common.to_vec();
    chargebee.extend([Fault::too_many_requests(0), Fault::status(500)]);
    let mut hasura = common.to_vec();
    hasura.extend([
        Fault::graphql_error("postgres-error"),
        Fault::graphql_error("unexpected"),
    ]);
    sandbox
        .chargebee()
        .faults()
        .at_random(seed, 0.15, chargebee);
    sandbox
        .hasura()
        .faults()
        .at_random(seed.wrapping_add(1), 0.12, hasura);
    let lines = vec![Fault::ResetBefore, Fault::ResetAfter];
    broker.faults().at_random(seed.wrapping_add(2), 0.08, lines);
}

fn heal(stage: &Stage) {
    stage.sandbox.chargebee().faults().stop();
    stage.sandbox.hasura().faults().stop();
    stage.broker.faults().stop();
}

/// Publishes the history in its own time, then lets the faults go on for a while. No more than
/// `backlog` messages wait to be acknowledged.
pub(super) async fn play(
    plan: &Plan,
    pusher: &Pusher,
    pace: &Pace,
    backlog: usize,
) -> Result<(), BoxError> {
    let mut message_ids = vec![String::new(); plan.events.len()];
    for (done, (at, action)) in plan.actions.iter().enumerate() {
        pace.hold_while(|| pusher.pending() > backlog).await;
        pace.reach(*at).await;
        match *action {
            Action::Publish(event) => {
                let json = plan.events[event].json.clone();
                message_ids[event] = pusher.publish(TOPIC, json, &[], None)?;
            }
            Action::PublishAgain(event) => {
                pusher.publish(TOPIC, plan.events[event].json.clone(), &[], None)?;
            }
            Action::Redeliver(event) => {
                pusher.redeliver(TOPIC, &message_ids[event]);
            }
        }
        if done % 25 == 0 {
            progress(done, plan.actions.len());
        }
    }
    progress(plan.actions.len(), plan.actions.len());
    // Ends early when everything is settled already.
    tokio::time::timeout(LINGER, pusher.idle()).await.ok();
    Ok(())
}

/// Shows how far it is, on a terminal only.
fn progress(done: usize, all: usize) {
    let mut out = std::io::stderr();
    if out.is_terminal() {
        let end = if done == all { "\r\x1b[K" } else { "" };
        write!(out, "\r{done} of {all} published{end}")
            .and_then(|()| out.flush())
            .ok();
    }
}

fn counts(plan: &Plan, seen: &Seen<'_>, verdict: &Verdict, stage: &Stage, paint: Paint) -> String {
    let deliveries: usize = seen
        .records
        .iter()
        .map(|record| record.deliveries.len())
        .sum();
    let refused = seen.records.iter().flat_map(|record| &record.deliveries);
    let refused = refused
        .filter(|delivered| delivered.status != Some(200))
        .count();
    let did = |what: Did| {
        seen.journal
            .iter()
            .filter(|entry| entry.did == what)
            .count()
    };
    let unseen = seen.journal.iter().filter(|entry| {
        matches!(entry.did, Did::Effect | Did::Nothing | Did::Replay)
            && matches!(
                entry.fault,
                Some("answer_after" | "reset_after" | "cut_short" | "hang_after")
            )
    });
    let again =
        |action: fn(&Action) -> bool| plan.actions.iter().filter(|(_, one)| action(one)).count();
    let mut table = Table::new(&["", ""]);
    for (what, count) in [
        (
            "messages delivered once more",
            again(|one| matches!(one, Action::Redeliver(_))),
        ),
        (
            "events published once more",
            again(|one| matches!(one, Action::PublishAgain(_))),
        ),
        ("deliveries", deliveries),
        ("  not acknowledged, so delivered again", refused),
        ("requests to Chargebee and Hasura", seen.journal.len()),
        (
            "faults at Chargebee",
            usize_of(stage.sandbox.chargebee().faults().hits()),
        ),
        (
            "faults at Hasura",
            usize_of(stage.sandbox.hasura().faults().hits()),
        ),
        (
            "faults at the broker",
            usize_of(stage.broker.faults().hits()),
        ),
        ("writes done whose answer got lost", unseen.count()),
        ("writes done", did(Did::Effect)),
        ("writes repeated, known by their key", did(Did::Replay)),
        ("good events applied", verdict.applied),
        ("events published downstream", seen.emitted.len()),
        ("dead letters", seen.dead_letters.len()),
    ] {
        table.row(vec![what.into(), format!("{count:>7}").into()]);
    }
    table.render(paint)
}

pub(super) fn usize_of(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Shows each rule and what speaks against it; `durable` adds those that need a database.
pub(super) fn rules(verdict: &Verdict, durable: bool, paint: Paint) -> String {
    let mut out = String::new();
    let mut rules = vec![
        ("nothing lost", &verdict.lost),
        ("nothing applied twice", &verdict.twice),
        ("nothing that nobody asked for", &verdict.phantoms),
        ("enough went wrong, and enough went well", &verdict.vacuous),
    ];
    if durable {
        rules.extend([
            ("everything in its order", &verdict.disorder),
            ("tables, topics and metrics agree", &verdict.unequal),
            ("everybody works again afterwards", &verdict.idle),
            (
                "no secret in logs, metrics and dead letters",
                &verdict.leaks,
            ),
        ]);
    }
    for (rule, complaints) in rules {
        let (ink, word) = match complaints.len() {
            0 => (Ink::Green, "holds"),
            _ => (Ink::Red, "BROKEN"),
        };
        out.push_str(&format!(
            "{}  {rule}\n",
            paint.ink(ink, &format!("{word:<6}"))
        ));
        for complaint in complaints.iter().take(SHOWN) {
            out.push_str(&format!("        {complaint}\n"));
        }
        if complaints.len() > SHOWN {
            out.push_str(&format!("        and {} more\n", complaints.len() - SHOWN));
        }
    }
    out
}
