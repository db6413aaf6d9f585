//! The sample events and how each of them has to end.

use crate::error::BoxError;
use crate::sandbox::{Did, Journal, Trace};

use super::world::{Out, Topic, World};

/// A sample event and how it has to end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// File name below `examples/events`, without `.json`.
    pub(super) name: &'static str,
    pub(super) json: &'static str,
    pub(super) about: &'static str,
    end: End,
}

/// How a sample has to end. Every one of them is acknowledged with 200.
#[derive(Debug, Clone, Copy)]
struct End {
    /// Writes the stand-ins take.
    writes: usize,
    /// Type of the event that follows.
    emits: Option<&'static str>,
    /// Code of the dead letter.
    dead_letter: Option<&'static str>,
    /// What the following event has to hold, digit for digit.
    holds: &'static str,
}

const NOTHING: End = End {
    writes: 0,
    emits: None,
    dead_letter: None,
    holds: "",
};

const fn done(writes: usize, emits: &'static str) -> End {
    End {
        writes,
        emits: Some(emits),
        ..NOTHING
    }
}

const fn buried(code: &'static str) -> End {
    End {
        dead_letter: Some(code),
        ..NOTHING
    }
}

macro_rules! sample {
    ($name:literal, $about:literal, $end:expr) => {
        Sample {
            name: $name,
            json: include_str!(concat!("../../../examples/events/", $name, ".json")),
            about: $about,
            end: $end,
        }
    };
}

/// Every sample, in the order in which `dev --once` runs them.
pub(super) const SAMPLES: &[Sample] = &[
    sample!(
        "contract_activated",
        "UPDATE signed → active: linked on both sides",
        done(2, "contract.activated")
    ),
    sample!("contract_inserted", "INSERT of a draft: skipped", NOTHING),
    sample!(
        "contract_cancelled",
        "UPDATE active → cancelled: ends with its term",
        done(1, "contract.cancelled")
    ),
    sample!(
        "contract_deleted",
        "DELETE: nobody takes it, counted as unrouted",
        NOTHING
    ),
    sample!(
        "contract_manual",
        "MANUAL from the console: unrouted",
        NOTHING
    ),
    sample!(
        "customer_inserted",
        "INSERT: created in Chargebee",
        done(1, "customer.created")
    ),
    sample!(
        "customer_updated",
        "UPDATE: updated in Chargebee",
        done(1, "customer.updated")
    ),
    sample!(
        "customer_deleted",
        "DELETE: an event, no call",
        done(0, "customer.deleted")
    ),
    sample!(
        "customer_rejected",
        "Chargebee refuses its e-mail: dead letter",
        buried("param_wrong_value")
    ),
    sample!(
        "null_session",
        "changed past Hasura: no session, no trace",
        done(2, "contract.activated")
    ),
    sample!(
        "mssql_shape",
        "MSSQL: schema dbo, no old row, no zone: unrouted",
        NOTHING
    ),
    sample!(
        "big_numbers",
        "an amount no float can hold leaves as it came",
        End {
            holds: "50755254975729665123.100",
            ..done(2, "contract.activated")
        }
    ),
    sample!("cron", "cron trigger: unrouted", NOTHING),
    sample!("one_off", "one-off scheduled event: unrouted", NOTHING),
    sample!(
        "malformed",
        "cut off in the middle: dead letter with its bytes",
        buried("not_json")
    ),
];

/// The sample `hookyard dev` starts with.
pub(super) const FIRST: &Sample = &SAMPLES[0];

/// Who takes it. Without it the samples mean nothing here.
pub(super) const FIRST_HANDLER: &str = "activate_contract";

/// Returns the first sample under ids of its own, so that sending the file afterwards is not a
/// duplicate of it.
pub(super) fn first_with_fresh_ids() -> String {
    let fresh = uuid::Uuid::new_v4().to_string();
    FIRST
        .json
        .replace("7f1c2d90-52aa-4c68-8f0b-000000000001", &fresh)
        .replace(
            "0c9e7a51-3b1d-4f5e-9a42-000000000001",
            &uuid::Uuid::new_v4().to_string(),
        )
        .replace("sub_1001", &format!("sub_{}", &fresh[..8]))
}

/// How a sample ended.
pub(super) struct Ended {
    pub(super) traces: Vec<Trace>,
    pub(super) emitted: Vec<Out>,
    pub(super) dead_letters: Vec<Out>,
    /// What is not as it should be.
    pub(super) complaints: Vec<String>,
}

/// Runs a sample and compares how it ended with how it has to end.
pub(super) async fn run(world: &mut World, sample: &Sample) -> Result<Ended, BoxError> {
    judge(world, sample.json, sample.end).await
}

/// Runs a sample for the second time, which must not do anything. A dead letter without an event
/// id cannot be told from a new one.
pub(super) async fn run_again(world: &mut World, sample: &Sample) -> Result<Ended, BoxError> {
    judge(world, sample.json, NOTHING).await
}

async fn judge(world: &mut World, json: &str, end: End) -> Result<Ended, BoxError> {
    let journal = world.sandbox.journal().clone();
    let before = writes(&journal);
    let traces = world.run(json).await?;
    let written = writes(&journal) - before;
    let emitted = world
        .published(Topic::Events, usize::from(end.emits.is_some()))
        .await?;
    let wanted = usize::from(end.dead_letter.is_some());
    let dead_letters = world.published(Topic::DeadLetters, wanted).await?;

    let mut complaints = Vec::new();
    if traces.len() != 1 {
        complaints.push(format!("expected one delivery, saw {}", traces.len()));
    }
    if written != end.writes {
        complaints.push(format!("expected {} writes, saw {written}", end.writes));
    }
    let types: Vec<&str> = emitted.iter().map(|out| out.attribute("ce-type")).collect();
    if types != Vec::from_iter(end.emits) {
        complaints.push(format!("expected {:?} to follow, saw {types:?}", end.emits));
    }
    if !emitted
        .iter()
        .all(|out| String::from_utf8_lossy(&out.data).contains(end.holds))
    {
        complaints.push(format!("{} did not leave as it came", end.holds));
    }
    let code = |out: &Out| out.attribute("hookyard-error-code").to_owned();
    let codes: Vec<String> = dead_letters.iter().map(code).collect();
    if codes != Vec::from_iter(end.dead_letter) {
        complaints.push(format!(
            "expected dead letter {:?}, saw {codes:?}",
            end.dead_letter
        ));
    }
    if !dead_letters.iter().all(|out| out.data == json.as_bytes()) {
        complaints.push("the dead letter does not hold the original bytes".to_owned());
    }
    Ok(Ended {
        traces,
        emitted,
        dead_letters,
        complaints,
    })
}

fn writes(journal: &Journal) -> usize {
    journal.count(Did::Effect) + journal.count(Did::Nothing)
}
