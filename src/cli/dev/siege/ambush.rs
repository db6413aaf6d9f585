//! An ambush: a service is stopped just before it ends a run, and wakes up while another one runs
//! the same. What it ends then would not be its own any more.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join3;
use serde_json::json;
use tokio::time::timeout;

use super::calm::Scene;
use crate::cli::dev::oracle::Verdict;
use crate::cli::dev::plan::{Kind, Plan, Planned};
use crate::error::BoxError;
use crate::sandbox::{Fault, Fleet, Hold};
use crate::store::inbox::RunKey;
use crate::store::proof::{self, Run};

/// The service that is stopped: right behind its last write, with all the time it needs. It takes
/// nothing but what it is given.
const SLEEPER: &[(&str, &str)] = &[
    ("HOOKYARD_FAIL_AT", "stop@after_hasura"),
    ("ENABLE_POLLING", "false"),
    ("RETRY_OWNER", "pubsub"),
    ("ACK_DEADLINE_MS", "60000"),
    ("HANDLER_TIMEOUT_MS", "50000"),
];

/// Whose runs are fought for.
const HANDLER: &str = "activate_contract";

/// It may be stopped in the middle of a transaction that keeps all others off: then once more.
const TRIES: usize = 5;

/// How long each step may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Before the last write; shorter than a try may take.
const LULL: Duration = Duration::from_millis(400);

/// Between two looks, and between two deliveries.
const GLANCE: Duration = Duration::from_millis(10);
const PAUSE: Duration = Duration::from_millis(200);

/// The events over which it comes to a fight.
pub(super) struct Ambush {
    events: Vec<usize>,
}

impl Ambush {
    /// Adds the events to the plan, which says what has to come of them; none where nobody is struck.
    pub(super) fn prepare(plan: &mut Plan, strikes: bool, seed: u64) -> Self {
        let mut add = |number| plan.add(Kind::Activate, &format!("ambush-{seed}-{number}"));
        let tries = if strikes { TRIES } else { 0 };
        Self {
            events: (0..tries).map(&mut add).collect(),
        }
    }

    /// Lays it until somebody was overtaken; returns how many were.
    pub(super) async fn lay(
        &self,
        scene: &Scene<'_>,
        fleet: &Fleet,
        verdict: &mut Verdict,
    ) -> Result<usize, BoxError> {
        let mut overtaken = 0;
        let events = self.events.iter();
        for event in events.filter_map(|place| scene.plan.events.get(*place)) {
            if overtaken > 0 {
                deliver(scene, event, "plainly").await;
                continue;
            }
            match fight(scene, fleet, event).await? {
                None => {}
                Some(run) => {
                    overtaken += 1;
                    let ended = !run.is_open();
                    verdict.twice.extend(ended.then(|| {
                        format!(
                            "{}: who had lost the run of {HANDLER} ended it for its new holder",
                            event.event_id
                        )
                    }));
                }
            }
        }
        if !scene.over().await {
            let what = "what was fought for was not done in time";
            verdict.idle.push(what.to_owned());
        }
        Ok(overtaken)
    }
}

/// Lets a service be overtaken, and returns the run as it was when that one had answered; `None`
/// when it did not come to that.
async fn fight(scene: &Scene<'_>, fleet: &Fleet, event: &Planned) -> Result<Option<Run>, BoxError> {
    let mut sleeper = fleet.start(SLEEPER).await?;
    let hold = Hold::default();
    let (chargebee, hasura) = (scene.sandbox.chargebee(), scene.sandbox.hasura());
    // Behind its first question, so that what others do for the event is out of the way by then.
    hasura.faults().pass();
    hasura.faults().next(Fault::Slow(LULL));
    let loser = async {
        let body = body(event, "sleeper");
        let answer = timeout(PATIENCE * 3, sleeper.push(&scene.sandbox.token(), body)).await;
        let run = look(scene, event).await;
        // Only now the one that runs it may go on.
        chargebee.faults().stop();
        hasura.faults().stop();
        hold.release();
        run.filter(|_| matches!(answer, Ok(Ok(_))))
    };
    let winner = async {
        if until(scene, event, |run| run.is_open() && run.is_over).await {
            chargebee.faults().always(Fault::Held(hold.clone()));
            hasura.faults().always(Fault::Held(hold.clone()));
        }
        deliver(scene, event, "winner").await;
    };
    let alarm = async {
        let taken = until(scene, event, |run| run.is_running() && run.fence > 1).await;
        sleeper.signal("CONT").await.ok();
        taken
    };
    let (run, (), taken) = join3(loser, winner, alarm).await;
    sleeper.kill().await;
    Ok(run.filter(|_| taken))
}

/// Waits until the run is as it should be; `false` when it has ended, or that takes too long.
async fn until(scene: &Scene<'_>, event: &Planned, holds: impl Fn(&Run) -> bool) -> bool {
    let look = async {
        loop {
            match look(scene, event).await {
                Some(run) if holds(&run) => return true,
                Some(run) if !run.is_open() => return false,
                _ => tokio::time::sleep(GLANCE).await,
            }
        }
    };
    timeout(PATIENCE, look).await.unwrap_or(false)
}

/// Where the database does not answer it is not known yet.
async fn look(scene: &Scene<'_>, event: &Planned) -> Option<Run> {
    let key = RunKey {
        event_id: event.event_id.clone(),
        handler: HANDLER,
        generation: 0,
    };
    proof::run(scene.store, &key).await.ok().flatten()
}

/// Gives the event to one of the others until it is acknowledged.
async fn deliver(scene: &Scene<'_>, event: &Planned, message: &str) {
    let Some(instance) = scene.force.instances().next() else {
        return;
    };
    let tries = async {
        loop {
            let token = scene.sandbox.token();
            let answer = instance.push(&token, body(event, message)).await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    // What is not taken at all is found by what it lacks in the end.
    timeout(PATIENCE * 4, tries).await.ok();
}

fn body(event: &Planned, message: &str) -> String {
    let data = STANDARD.encode(&event.json);
    let id = format!("{}-{message}", event.event_id);
    json!({"message": {"data": data, "messageId": id}}).to_string()
}
