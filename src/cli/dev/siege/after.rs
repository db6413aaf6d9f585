//! What is found when everything has settled, and the rules about it.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::brokers::Published;
use crate::cli::dev::oracle::Verdict;
use crate::cli::dev::plan::{Kind, Plan, Planned};
use crate::cli::dev::world::Out;
use crate::error::BoxError;
use crate::store::Store;
use crate::store::proof::{self, Letter, Owed};

/// Everything the database and the broker hold in the end.
pub(super) struct Found {
    pub(super) emitted: Vec<Out>,
    /// Dead letters of the dead-letter topic.
    pub(super) published_letters: Vec<Out>,
    pub(super) letters: Vec<Letter>,
    pub(super) credits: Vec<(String, i64)>,
    pub(super) owed: Owed,
    outbox: Vec<(Option<String>, String)>,
    ended_again: Vec<(String, String)>,
}

impl Found {
    pub(super) async fn look(
        store: &Store,
        emitted: &[Published],
        letters: &[Published],
    ) -> Result<Self, BoxError> {
        let out = |published: &Published| Out {
            data: published.message.data.to_vec(),
            attributes: published.message.attributes.clone(),
        };
        Ok(Self {
            emitted: emitted.iter().map(out).collect(),
            published_letters: letters.iter().map(out).collect(),
            letters: proof::letters(store).await?,
            credits: proof::credits(store).await?,
            owed: proof::owed(store).await?,
            outbox: proof::outbox_order(store).await?,
            ended_again: proof::ended_again(store).await?,
        })
    }

    pub(super) fn emitted_of(&self, event_type: &str) -> impl Iterator<Item = &Out> {
        self.emitted
            .iter()
            .filter(move |out| out.attribute("ce-type") == event_type)
    }
}

/// What is left over in the end is lost.
pub(super) fn settled(found: &Found, verdict: &mut Verdict) {
    if !found.owed.nothing() {
        let Owed {
            outbox,
            events,
            runs,
        } = found.owed;
        verdict.lost.push(format!(
            "left over: {outbox} to publish, {events} rows, {runs} runs"
        ));
    }
}

/// Who has lost its lease must not end the run: somebody else has.
pub(super) fn ended_again(found: &Found, verdict: &mut Verdict) {
    for (event, handler) in &found.ended_again {
        let what = format!("{event}: the run of {handler} changed after its end");
        verdict.twice.push(what);
    }
}

/// The order of publication is the order of the commits, for each ordering key.
pub(super) fn order(found: &Found, verdict: &mut Verdict) {
    let mut first: HashMap<&str, usize> = HashMap::new();
    for (place, out) in found.emitted.iter().enumerate() {
        first.entry(out.attribute("ce-id")).or_insert(place);
    }
    let mut last: BTreeMap<&str, usize> = BTreeMap::new();
    for (key, id) in &found.outbox {
        let (Some(key), Some(&place)) = (key, first.get(id.as_str())) else {
            continue;
        };
        let before = last.entry(key).or_insert(place);
        if place < *before {
            verdict
                .disorder
                .push(format!("{key}: {id} overtook the one before"));
        }
        *before = place;
    }
}

/// The table of dead letters and the topic of dead letters say the same.
pub(super) fn reconcile(plan: &Plan, found: &Found, verdict: &mut Verdict) {
    let poison = |event: &&Planned| matches!(event.kind, Kind::Poison(_));
    let poison: HashSet<&[u8]> = plan
        .events
        .iter()
        .filter(poison)
        .map(|event| event.json.as_bytes())
        .collect();
    // Events that nobody takes are kept, but not told.
    let told = |letter: &&Letter| letter.error_code != "unrouted";
    let kept: HashSet<&[u8]> = found
        .letters
        .iter()
        .filter(told)
        .map(|letter| letter.original.as_slice())
        .collect();
    let sent: HashSet<&[u8]> = found
        .published_letters
        .iter()
        .map(|out| out.data.as_slice())
        .collect();
    for one in poison.difference(&kept) {
        let text = String::from_utf8_lossy(one);
        let start: String = text.chars().take(40).collect();
        verdict
            .lost
            .push(format!("not in the table of dead letters: {start}"));
    }
    let (only_kept, only_sent) = (kept.difference(&sent), sent.difference(&kept));
    let (only_kept, only_sent) = (only_kept.count(), only_sent.count());
    if only_kept + only_sent > 0 {
        verdict.unequal.push(format!(
            "{only_kept} dead letters are in the table only, {only_sent} in the topic only"
        ));
    }
    let unrouted = |event: &&Planned| event.kind == Kind::Unrouted;
    for event in plan.events.iter().filter(unrouted) {
        let is_its = |letter: &&Letter| letter.event_key == event.event_id;
        let of_it: Vec<_> = found.letters.iter().filter(is_its).collect();
        if !matches!(of_it[..], [one] if one.error_code == "unrouted") {
            let count = of_it.len();
            verdict.lost.push(format!(
                "{}: kept {count} times as unrouted",
                event.event_id
            ));
        }
    }
    // Two of one event and handler would be one failure told twice.
    let mut twice: HashMap<(&str, &str, &[u8]), usize> = HashMap::new();
    for letter in found
        .letters
        .iter()
        .filter(|letter| letter.error_code != "not_json")
    {
        let key = (
            letter.event_key.as_str(),
            letter.error_code.as_str(),
            letter.original.as_slice(),
        );
        *twice.entry(key).or_default() += 1;
    }
    for ((event, code, _), count) in twice.into_iter().filter(|(_, count)| *count > 1) {
        verdict
            .twice
            .push(format!("{event}: {count} dead letters ({code})"));
    }
}

/// Nothing secret and no value of a row is in a log or in a dead letter's own words.
pub(super) fn leaks(logs: &[String], found: &Found, secrets: &[String], verdict: &mut Verdict) {
    for secret in secrets.iter().filter(|secret| secret.len() >= 4) {
        let in_logs = logs
            .iter()
            .filter(|log| log.contains(secret.as_str()))
            .count();
        let in_letters = found.letters.iter();
        let in_letters = in_letters.filter(|letter| letter.message.contains(secret.as_str()));
        let count = in_logs + in_letters.count();
        if count > 0 {
            let start: String = secret.chars().take(3).collect();
            verdict.leaks.push(format!(
                "{start}… is in {count} logs, metrics or dead letters"
            ));
        }
    }
}
