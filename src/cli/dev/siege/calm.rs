//! The calm at the end: every service takes events of every kind as if nothing had been, and what
//! all of them count grows by exactly that.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::figures::{self, Figures, Held, Sent};
use super::force::Force;
use super::pace::Pace;
use super::{DEAD_LETTERS, EVENTS, rows};
use crate::cli::dev::oracle::Verdict;
use crate::cli::dev::plan::{Kind, Plan, Poison};
use crate::error::BoxError;
use crate::sandbox::{Instance, Sandbox};
use crate::store::{Store, proof};

/// What every service has to take.
const KINDS: &[Kind] = &[
    Kind::CustomerDelete,
    Kind::CustomerDelete,
    Kind::Activate,
    Kind::Cancel,
    Kind::CustomerNew,
    Kind::Draft,
    Kind::Unrouted,
    Kind::Poison(Poison::WrongType),
    Kind::Poison(Poison::CutOff),
];

/// Rows inserted meanwhile.
const ROWS: usize = 9;

/// How often a delivery is sent before it counts as refused.
const TRIES: usize = 3;

/// How long figures may take to come to rest; the relays count what waits every second.
const REST: Duration = Duration::from_secs(60);

/// Longer than a waiting delivery waits between two looks at somebody else's run.
const PAUSE: Duration = Duration::from_millis(1100);

/// How long the calm's own events may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The events and rows of the calm.
pub(super) struct Calm {
    /// For each service, their places in the plan.
    events: Vec<Vec<usize>>,
    pub(super) rows: Vec<rows::Planned>,
}

/// What came of it, beside complaints.
#[derive(Default)]
pub(super) struct Looked {
    /// Everything read from `/metrics`, where no secret may be either.
    pub(super) texts: Vec<String>,
    /// Deliveries of the calm that came again.
    pub(super) handed_back: i64,
}

/// Who and what takes part.
pub(super) struct Scene<'a> {
    pub(super) plan: &'a Plan,
    pub(super) sandbox: &'a Sandbox,
    pub(super) store: &'a Store,
    pub(super) force: &'a Force<'a>,
}

impl Calm {
    /// Adds the events to the plan, which says what has to come of them.
    pub(super) fn prepare(plan: &mut Plan, instances: usize, seed: u64) -> Self {
        let mut of = |service: usize| {
            let kinds = KINDS.iter().enumerate();
            let add = |(number, kind): (usize, &Kind)| {
                plan.add(*kind, &format!("calm-{seed}-{service}-{number}"))
            };
            kinds.map(add).collect()
        };
        Self {
            events: (0..instances).map(&mut of).collect(),
            rows: rows::draw(ROWS, Duration::ZERO, seed ^ 0xCA1F),
        }
    }

    /// Sends them, and compares.
    pub(super) async fn play(
        &self,
        scene: &Scene<'_>,
        verdict: &mut Verdict,
    ) -> Result<Looked, BoxError> {
        let mut looked = Looked::default();
        let before = at_rest(scene, &mut looked.texts, verdict).await?;
        let held_before = scene.look().await?;
        verdict
            .unequal
            .extend(figures::refused(&scene.all(&before)));
        let mut sent = Sent::default();
        for (instance, events) in scene.force.instances().zip(&self.events) {
            let complaints = self.send(scene, instance, events, &mut sent).await;
            verdict.idle.extend(complaints);
        }
        rows::insert(&self.rows, scene.store, &Pace::start()).await?;
        if !scene.over().await {
            let what = "what was sent last was not done in time";
            verdict.idle.push(what.to_owned());
            return Ok(looked);
        }
        let (after, texts) = read(scene.force).await?;
        let held = scene.look().await?;
        let too_much = figures::never_more(&scene.all(&after), &held);
        verdict.unequal.extend(too_much);
        let grown = figures::agree((&before, &held_before), (&after, held), &sent);
        verdict.unequal.extend(grown);
        looked.texts.extend(texts);
        looked
            .texts
            .extend(scene.force.fallen.texts.iter().cloned());
        looked.handed_back = after.handed_back() - before.handed_back() + sent.again;
        Ok(looked)
    }

    /// Gives a service its events, one of them twice, and something that is not from Pub/Sub.
    async fn send(
        &self,
        scene: &Scene<'_>,
        instance: &Instance,
        events: &[usize],
        sent: &mut Sent,
    ) -> Vec<String> {
        let mut complaints = Vec::new();
        let planned = events
            .iter()
            .filter_map(|place| scene.plan.events.get(*place));
        let first = planned.clone().next();
        let messages = planned.map(|event| (event, "first"));
        for (event, time) in messages.chain(first.map(|event| (event, "again"))) {
            sent.unrouted += i64::from(event.kind == Kind::Unrouted);
            sent.undecodable += i64::from(event.kind == Kind::Poison(Poison::CutOff));
            sent.repeats += i64::from(time == "again");
            if time == "again" {
                // In the worker's hands it may still be under way.
                scene.over().await;
            }
            let message = format!("{}-{time}", event.event_id);
            let data = STANDARD.encode(&event.json);
            let body = json!({"message": {"data": data, "messageId": message}}).to_string();
            let mut status = Err("it was not sent".into());
            for try_number in 0..TRIES {
                sent.again += i64::from(try_number > 0);
                let answer = instance.push(&scene.sandbox.token(), body.clone()).await;
                status = answer.map(|answer| answer.status().as_u16());
                if matches!(status, Ok(200)) {
                    break;
                }
                tokio::time::sleep(PAUSE).await;
            }
            if !matches!(status, Ok(200)) {
                complaints.push(format!("{message}: answered {status:?}"));
            }
        }
        sent.forged += 1;
        let forged = instance.push("", "{}".to_owned()).await;
        match forged.map(|answer| answer.status().as_u16()) {
            Ok(401) => {}
            other => complaints.push(format!("a delivery without a token: answered {other:?}")),
        }
        complaints
    }
}

impl Scene<'_> {
    async fn look(&self) -> Result<Held, BoxError> {
        Held::look(self.store, self.sandbox, &[EVENTS, DEAD_LETTERS]).await
    }

    /// Adds what those counted that died.
    fn all(&self, living: &Figures) -> Figures {
        let mut all = living.clone();
        all.add(&self.force.fallen.figures);
        all
    }

    /// Waits until nothing is left over.
    pub(super) async fn over(&self) -> bool {
        let nothing = async {
            // Where the database does not answer it is not known yet.
            while !matches!(proof::owed(self.store).await, Ok(owed) if owed.nothing()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, nothing).await.is_ok()
    }
}

async fn read(force: &Force<'_>) -> Result<(Figures, Vec<String>), BoxError> {
    let (mut sum, mut texts) = (Figures::default(), Vec::new());
    for instance in force.instances() {
        let (figures, text) = Figures::of(instance).await?;
        sum.add(&figures);
        texts.push(text);
    }
    Ok((sum, texts))
}

/// Waits until all gauges say that nothing waits and nothing is counted any more.
async fn at_rest(
    scene: &Scene<'_>,
    texts: &mut Vec<String>,
    verdict: &mut Verdict,
) -> Result<Figures, BoxError> {
    let started = tokio::time::Instant::now();
    let (mut before, _) = read(scene.force).await?;
    loop {
        tokio::time::sleep(PAUSE).await;
        let (now, read) = read(scene.force).await?;
        let mut restless = read.iter().map(|text| Figures::parse(text));
        let restless = restless.any(|one| !figures::at_rest(&one));
        if !restless && now.counts() == before.counts() {
            texts.extend(read);
            return Ok(now);
        }
        if started.elapsed() > REST {
            let what = "gauges or counters of the services do not come to rest";
            verdict.unequal.push(what.to_owned());
            return Ok(now);
        }
        before = now;
    }
}
