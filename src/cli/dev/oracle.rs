//! Judges a chaotic history by what the stand-ins saw: nothing lost, nothing twice, no phantom.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::plan::{Kind, Plan, Planned};
use crate::brokers::Published;
use crate::sandbox::{Did, Entry, Record, Sandbox, Standing};

/// Share of good events that have to be applied for a run to say anything.
const ENOUGH: f64 = 0.9;

/// Everything that was seen from outside the service.
pub(super) struct Seen<'a> {
    pub(super) sandbox: &'a Sandbox,
    pub(super) journal: Vec<Entry>,
    pub(super) records: Vec<Record>,
    pub(super) emitted: Vec<Published>,
    pub(super) dead_letters: Vec<Published>,
    /// Faults met, of all stand-ins and the broker.
    pub(super) faults: u64,
}

/// What is wrong, by rule. Empty lists are good.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// An acknowledged event left no outcome, or an event was never acknowledged.
    pub(super) lost: Vec<String>,
    /// A write was taken twice, or one event was announced under two ids.
    pub(super) twice: Vec<String>,
    /// Something happened that no event asked for.
    pub(super) phantoms: Vec<String>,
    /// The run was too quiet to prove anything.
    pub(super) vacuous: Vec<String>,
    /// One thing overtook another of the same kind.
    pub(super) disorder: Vec<String>,
    /// Two accounts of the same thing differ.
    pub(super) unequal: Vec<String>,
    /// Somebody did not work again after the last fault.
    pub(super) idle: Vec<String>,
    /// A secret or a value of a row was found where it must not be.
    pub(super) leaks: Vec<String>,
    /// Good events whose outcome is complete.
    pub(super) applied: usize,
}

impl Verdict {
    /// Tells whether all rules hold.
    pub(super) fn good(&self) -> bool {
        self.lists().into_iter().all(Vec::is_empty)
    }

    /// Adds what somebody else found.
    pub(super) fn add(&mut self, other: Self) {
        self.lost.extend(other.lost);
        self.twice.extend(other.twice);
        self.phantoms.extend(other.phantoms);
        self.vacuous.extend(other.vacuous);
        self.disorder.extend(other.disorder);
        self.unequal.extend(other.unequal);
        self.idle.extend(other.idle);
        self.leaks.extend(other.leaks);
        self.applied += other.applied;
    }

    fn lists(&self) -> [&Vec<String>; 8] {
        [
            &self.lost,
            &self.twice,
            &self.phantoms,
            &self.vacuous,
            &self.disorder,
            &self.unequal,
            &self.idle,
            &self.leaks,
        ]
    }
}

/// Compares what was seen with what the plan says has to come of it.
pub(super) fn judge(plan: &Plan, seen: &Seen<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    let emitted = by_attribute(&seen.emitted, "ce-causationid");
    let letters = by_attribute(&seen.dead_letters, "hookyard-event-id");
    let letter_bytes: HashSet<&[u8]> = seen
        .dead_letters
        .iter()
        .map(|letter| &letter.message.data[..])
        .collect();

    for record in seen
        .records
        .iter()
        .filter(|record| record.standing != Standing::Acked)
    {
        verdict.lost.push(format!(
            "message {} was never acknowledged",
            record.message_id
        ));
    }
    for event in &plan.events {
        let followed = emitted
            .get(event.event_id.as_str())
            .map_or(&[][..], Vec::as_slice);
        let missing = match event.kind {
            Kind::Poison(_) => missing_letter(event, &letters, &letter_bytes),
            _ => missing_outcome(event, followed, seen),
        };
        match missing {
            Some(what) => verdict.lost.push(format!("{}: {what}", event.event_id)),
            None => verdict.applied += usize::from(!matches!(event.kind, Kind::Poison(_))),
        }
        let ids: BTreeSet<&str> = followed.iter().map(|out| attribute(out, "ce-id")).collect();
        if ids.len() > 1 {
            let what = format!("{}: announced under {} ids", event.event_id, ids.len());
            verdict.twice.push(what);
        }
        let other = |out: &&&Published| {
            Some(attribute(out, "ce-type")) != event.emits()
                || attribute(out, "ce-subject") != event.subject
        };
        for out in followed.iter().filter(other) {
            let what = format!(
                "{}: followed by {}",
                event.event_id,
                attribute(out, "ce-type")
            );
            verdict.phantoms.push(what);
        }
    }
    effects(plan, seen, &mut verdict);
    strangers(plan, seen, &mut verdict);
    vacuous(plan, seen, &mut verdict);
    verdict
}

type Outs<'a> = HashMap<&'a str, Vec<&'a Published>>;

fn by_attribute<'a>(all: &'a [Published], name: &str) -> Outs<'a> {
    let mut sorted: Outs<'a> = HashMap::new();
    for out in all {
        sorted.entry(attribute(out, name)).or_default().push(out);
    }
    sorted
}

pub(super) fn attribute<'a>(out: &'a Published, name: &str) -> &'a str {
    let found = out.message.attributes.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value.as_str()).unwrap_or_default()
}

fn missing_letter(event: &Planned, letters: &Outs<'_>, bytes: &HashSet<&[u8]>) -> Option<String> {
    if !bytes.contains(event.json.as_bytes()) {
        return Some("no dead letter holds its bytes".to_owned());
    }
    let Kind::Poison(poison) = event.kind else {
        return None;
    };
    let named = letters
        .get(event.event_id.as_str())
        .and_then(|all| all.first());
    let code = named.map(|letter| attribute(letter, "hookyard-error-code"));
    // One that could not be decoded has no event id to be found by.
    code.filter(|code| *code != poison.code())
        .map(|code| format!("its dead letter says {code}"))
}

fn missing_outcome(event: &Planned, followed: &[&Published], seen: &Seen<'_>) -> Option<String> {
    if let Some(wanted) = event.emits().filter(|_| followed.is_empty()) {
        return Some(format!("{wanted} was not published"));
    }
    let subscription = || seen.sandbox.chargebee().subscription(&event.subscription);
    let customer = || seen.sandbox.chargebee().customer(&event.subject);
    match event.kind {
        Kind::Activate => {
            let linked = subscription().is_some_and(|row| row["cf_contract_id"] == *event.subject);
            let contract = seen.sandbox.hasura().contract(&event.subject);
            let known =
                contract.is_some_and(|row| row["chargebee_subscription_id"] == *event.subscription);
            match (linked, known) {
                (false, _) => Some("its subscription does not carry the contract".to_owned()),
                (_, false) => Some("its contract does not carry the subscription".to_owned()),
                (true, true) => None,
            }
        }
        Kind::Cancel if subscription().is_none_or(|row| row["status"] != "non_renewing") => {
            Some("its subscription does not end".to_owned())
        }
        Kind::CustomerNew | Kind::CustomerChange
            if customer().is_none_or(|row| row["first_name"] != "New") =>
        {
            Some("Chargebee does not have its details".to_owned())
        }
        _ => None,
    }
}

/// Counts what the stand-ins took. A replay is no effect; at Chargebee a write that changes
/// nothing is one all the same, because real writes there send mails and webhooks.
fn effects(plan: &Plan, seen: &Seen<'_>, verdict: &mut Verdict) {
    let chargebee = plan.changes(Planned::chargebee_subject);
    let hasura = plan.changes(Planned::hasura_subject);
    let mut counts: HashMap<(&str, &str), usize> = HashMap::new();
    for entry in &seen.journal {
        let effect = match entry.upstream {
            "chargebee" => matches!(entry.did, Did::Effect | Did::Nothing),
            _ => entry.did == Did::Effect,
        };
        if effect {
            *counts.entry((entry.upstream, &entry.subject)).or_default() += 1;
        }
    }
    for ((upstream, subject), count) in counts {
        let wanted = match upstream {
            "chargebee" => chargebee.get(subject),
            _ => hasura.get(subject),
        };
        match wanted {
            None => verdict
                .phantoms
                .push(format!("{upstream} {subject}: nobody asked for that")),
            Some(&wanted) if count > wanted => {
                verdict
                    .twice
                    .push(format!("{upstream} {subject}: written {count} times"));
            }
            Some(_) => {}
        }
    }
}

/// Finds messages that no event asked for, and good events among the dead letters.
fn strangers(plan: &Plan, seen: &Seen<'_>, verdict: &mut Verdict) {
    let ids: HashSet<&str> = plan
        .events
        .iter()
        .map(|event| event.event_id.as_str())
        .collect();
    let poison = |event: &&Planned| matches!(event.kind, Kind::Poison(_));
    let poison: HashSet<&[u8]> = plan
        .events
        .iter()
        .filter(poison)
        .map(|event| event.json.as_bytes())
        .collect();
    for out in &seen.emitted {
        let cause = attribute(out, "ce-causationid");
        if !ids.contains(cause) {
            verdict.phantoms.push(format!(
                "an event because of {cause:?}, which was never sent"
            ));
        }
    }
    for letter in &seen.dead_letters {
        if !poison.contains(&letter.message.data[..]) {
            let id = attribute(letter, "hookyard-event-id");
            let code = attribute(letter, "hookyard-error-code");
            verdict
                .phantoms
                .push(format!("{id}: a dead letter ({code}) of a good event"));
        }
    }
}

/// A run that met no fault, or applied little, proves nothing.
fn vacuous(plan: &Plan, seen: &Seen<'_>, verdict: &mut Verdict) {
    let good = plan.events.len() - plan.poison();
    if (verdict.applied as f64) < ENOUGH * good as f64 {
        verdict.vacuous.push(format!(
            "only {} of {good} good events applied",
            verdict.applied
        ));
    }
    // A handful of events may well be lucky.
    if plan.events.len() >= 50 {
        let replays = seen
            .journal
            .iter()
            .filter(|entry| entry.did == Did::Replay)
            .count();
        if seen.faults == 0 {
            verdict.vacuous.push("no fault was met".to_owned());
        } else if replays == 0 {
            verdict
                .vacuous
                .push("no write was ever sent again".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use bytes::Bytes;

    use super::*;
    use crate::brokers::Message;

    fn quiet(sandbox: &Sandbox) -> Seen<'_> {
        Seen {
            sandbox,
            journal: Vec::new(),
            records: Vec::new(),
            emitted: Vec::new(),
            dead_letters: Vec::new(),
            faults: 0,
        }
    }

    fn published(data: &str, attributes: &[(&str, &str)]) -> Published {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Published {
            topic: "topic".to_owned(),
            message_id: "1".to_owned(),
            message: Message {
                data: Bytes::copy_from_slice(data.as_bytes()),
                attributes: attributes.iter().map(own).collect(),
                ordering_key: None,
            },
        }
    }

    fn write(subject: &str, did: Did) -> Entry {
        Entry {
            at: SystemTime::UNIX_EPOCH,
            upstream: "chargebee",
            request: "POST".to_owned(),
            subject: subject.to_owned(),
            key: None,
            hash: 0,
            did,
            status: 200,
            fault: None,
        }
    }

    fn first(plan: &Plan, kind: Kind) -> &Planned {
        plan.events.iter().find(|event| event.kind == kind).unwrap()
    }

    #[tokio::test]
    async fn a_service_that_does_nothing_loses_every_event_that_asks_for_something() {
        let sandbox = Sandbox::builder().start().await.unwrap();
        let plan = Plan::draw(100, 3);
        let asking = |event: &&Planned| !matches!(event.kind, Kind::Draft | Kind::Unrouted);

        let verdict = judge(&plan, &quiet(&sandbox));

        assert_eq!(
            verdict.lost.len(),
            plan.events.iter().filter(asking).count()
        );
        assert!(!verdict.vacuous.is_empty());
    }

    #[tokio::test]
    async fn a_second_write_is_seen_and_a_replay_is_none() {
        let sandbox = Sandbox::builder().start().await.unwrap();
        let plan = Plan::draw(100, 3);
        let subject = &first(&plan, Kind::Activate).subscription;
        let mut seen = quiet(&sandbox);

        seen.journal = vec![write(subject, Did::Effect), write(subject, Did::Replay)];
        assert!(judge(&plan, &seen).twice.is_empty());

        seen.journal.push(write(subject, Did::Nothing));
        assert_eq!(judge(&plan, &seen).twice.len(), 1);
    }

    #[tokio::test]
    async fn one_event_may_be_announced_twice_but_under_one_id() {
        let sandbox = Sandbox::builder().start().await.unwrap();
        let plan = Plan::draw(100, 3);
        let event = first(&plan, Kind::CustomerDelete);
        let out = |id| {
            let cause = ("ce-causationid", event.event_id.as_str());
            let subject = ("ce-subject", event.subject.as_str());
            published(
                "{}",
                &[
                    ("ce-id", id),
                    ("ce-type", "customer.deleted"),
                    cause,
                    subject,
                ],
            )
        };
        let mut seen = quiet(&sandbox);

        seen.emitted = vec![out("a"), out("a")];
        let verdict = judge(&plan, &seen);
        assert!(verdict.twice.is_empty() && verdict.phantoms.is_empty());

        seen.emitted.push(out("b"));
        assert_eq!(judge(&plan, &seen).twice.len(), 1);
    }

    #[tokio::test]
    async fn what_nobody_asked_for_is_a_phantom() {
        let sandbox = Sandbox::builder().start().await.unwrap();
        let plan = Plan::draw(100, 3);
        let good = first(&plan, Kind::Cancel);
        let mut seen = quiet(&sandbox);
        seen.journal = vec![write("sub_of_nobody", Did::Effect)];
        seen.emitted = vec![published("{}", &[("ce-causationid", "never sent")])];
        seen.dead_letters = vec![published(
            &good.json,
            &[("hookyard-event-id", &good.event_id)],
        )];

        assert_eq!(judge(&plan, &seen).phantoms.len(), 3);
    }
}
