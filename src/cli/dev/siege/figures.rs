//! What the services say of themselves at `/metrics`, held against tables, topics and journals.
//!
//! A counter dies with its process, so what all of them counted is never more than what is there.
//! In the calm at the end nobody dies: there a counter grows by exactly what is there more.

use std::collections::{BTreeMap, BTreeSet};

use crate::brokers::Published;
use crate::error::BoxError;
use crate::sandbox::{ADMIN_TOKEN, Entry, Instance, Sandbox};
use crate::store::Store;
use crate::store::proof;

/// Why a delivery may be refused among healthy callers: too many of them, keys that cannot be had
/// for the moment, a connection that breaks.
const EXCUSED: &[&str] = &[
    "overloaded",
    "keys_unavailable",
    "body_broken",
    "body_timeout",
];

/// Counters, with a label and its value or without, that nothing here is a reason to count with.
const ZERO: &[(&str, &str, &str)] = &[
    ("hookyard_events_total", "outcome", "id_reuse"),
    ("hookyard_published_total", "outcome", "permanent"),
    ("hookyard_swept_rows_total", "", ""),
    ("hookyard_drained_total", "", ""),
    ("hookyard_spans_total", "", ""),
];

type Labels = BTreeMap<String, String>;

/// The metrics of one service at a moment, or the sum of several.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Figures(BTreeMap<(String, Labels), f64>);

impl Figures {
    /// Asks a service.
    pub(super) async fn of(instance: &Instance) -> Result<(Self, String), BoxError> {
        let text = instance.get(ADMIN_TOKEN, "/metrics").await?;
        Ok((Self::parse(&text), text))
    }

    /// Reads Prometheus' text format, as far as it is written here: no label holds a comma.
    pub(super) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.trim_end_matches('}').split(',').filter_map(|label| {
                let (name, value) = label.split_once('=')?;
                Some((name.to_owned(), value.trim_matches('"').to_owned()))
            });
            Some(((name.to_owned(), labels.collect()), value.parse().ok()?))
        };
        Self(lines.filter_map(sample).collect())
    }

    /// Adds those of another service.
    pub(super) fn add(&mut self, other: &Self) {
        for (series, value) in &other.0 {
            *self.0.entry(series.clone()).or_default() += value;
        }
    }

    /// Returns how much everything has grown since `before`.
    fn since(&self, before: &Self) -> Self {
        let grown = |(series, value): (&(String, Labels), &f64)| {
            let before = before.0.get(series).copied().unwrap_or_default();
            (series.clone(), value - before)
        };
        Self(self.0.iter().map(grown).collect())
    }

    /// Returns the sum of all series of this name that carry the labels.
    pub(super) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> i64 {
        let fits = |(series, of): &(String, Labels)| {
            series == name
                && labels
                    .iter()
                    .all(|(label, value)| of.get(*label).is_some_and(|it| it == value))
        };
        let all = self.0.iter().filter(|(series, _)| fits(series));
        all.map(|(_, value)| value.round() as i64).sum()
    }

    fn events(&self, handler: &str, outcome: &str) -> i64 {
        let labels = [("handler", handler), ("outcome", outcome)];
        self.sum("hookyard_events_total", &labels)
    }

    /// How often an event was handed back.
    pub(super) fn handed_back(&self) -> i64 {
        self.sum("hookyard_events_total", &[("outcome", "retry")])
    }

    /// How often anything was counted that deliveries and publications lead to.
    pub(super) fn counts(&self) -> [i64; 3] {
        [
            self.sum("hookyard_events_total", &[]),
            self.sum("hookyard_published_total", &[]),
            self.sum("hookyard_upstream_requests_total", &[]),
        ]
    }

    /// Returns the values of a label.
    fn values(&self, name: &str, label: &str) -> BTreeSet<&str> {
        let of = self.0.iter().filter(|((series, _), _)| series == name);
        of.filter_map(|((_, labels), _)| labels.get(label).map(String::as_str))
            .collect()
    }
}

/// What there is to hold figures against.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Runs that ended, by handler and outcome.
    ended: BTreeMap<(String, String), i64>,
    unrouted: i64,
    undecodable: i64,
    /// Rows of the outbox that are published, by topic.
    outbox: BTreeMap<String, i64>,
    /// What the broker has taken, by topic: copies, and different ones.
    taken: BTreeMap<String, (i64, i64)>,
    /// Requests that arrived, by upstream.
    requests: BTreeMap<&'static str, i64>,
}

impl Held {
    pub(super) async fn look(
        store: &Store,
        sandbox: &Sandbox,
        topics: &[&str],
    ) -> Result<Self, BoxError> {
        let letters = proof::letters(store).await?;
        let of_code = |code| letters.iter().filter(|one| one.error_code == code).count();
        let broker = sandbox.broker().broker();
        let taken = topics
            .iter()
            .map(|topic| ((*topic).to_owned(), copies(&broker.published(topic))));
        let mut requests = BTreeMap::new();
        for Entry { upstream, .. } in sandbox.journal().entries() {
            *requests.entry(upstream).or_default() += 1;
        }
        let ended = proof::ended(store).await?.into_iter();
        Ok(Self {
            ended: ended
                .map(|(handler, outcome, count)| ((handler, outcome), count))
                .collect(),
            unrouted: i64::try_from(of_code("unrouted"))?,
            undecodable: i64::try_from(of_code("not_json"))?,
            outbox: proof::published(store).await?.into_iter().collect(),
            taken: taken.collect(),
            requests,
        })
    }

    fn since(self, before: &Self) -> Self {
        Self {
            ended: less(self.ended, &before.ended),
            unrouted: self.unrouted - before.unrouted,
            undecodable: self.undecodable - before.undecodable,
            outbox: less(self.outbox, &before.outbox),
            taken: self
                .taken
                .into_iter()
                .map(|(topic, (copies, ids))| {
                    let before = before.taken.get(&topic).copied().unwrap_or_default();
                    (topic, (copies - before.0, ids - before.1))
                })
                .collect(),
            requests: less(self.requests, &before.requests),
        }
    }
}

fn copies(all: &[Published]) -> (i64, i64) {
    let ids: BTreeSet<_> = all.iter().map(identity).collect();
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    (count(all.len()), count(ids.len()))
}

/// A dead letter has no id of its own; its words say when it was written.
fn identity(one: &Published) -> (&[u8], Vec<&(String, String)>) {
    (&one.message.data, one.message.attributes.iter().collect())
}

fn less<K: Ord>(now: BTreeMap<K, i64>, before: &BTreeMap<K, i64>) -> BTreeMap<K, i64> {
    let grown = |(key, count)| {
        let before = before.get(&key).copied().unwrap_or_default();
        (key, count - before)
    };
    now.into_iter().map(grown).collect()
}

/// What all services counted, those that died included, is never more than what is there.
pub(super) fn never_more(counted: &Figures, held: &Held) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut at_most = |what: &str, counted: i64, most: i64| {
        if counted > most {
            complaints.push(format!("{what}: {counted} counted, and there are {most}"));
        }
    };
    for (what, counted, there) in runs(counted, held) {
        at_most(&what, counted, there);
    }
    for (topic, (copies, _)) in &held.taken {
        at_most(
            &format!("published to {topic}"),
            ok("hookyard_published_total", "topic", topic, counted),
            *copies,
        );
    }
    for upstream in counted.values("hookyard_upstream_requests_total", "upstream") {
        let requests = held.requests.get(upstream).copied().unwrap_or_default();
        at_most(
            &format!("requests {upstream} has answered"),
            ok(
                "hookyard_upstream_requests_total",
                "upstream",
                upstream,
                counted,
            ),
            requests,
        );
    }
    for &(name, label, value) in ZERO {
        let labels = [(label, value)];
        let labels = if label.is_empty() {
            &[][..]
        } else {
            &labels[..]
        };
        at_most(&format!("{name} {value}"), counted.sum(name, labels), 0);
    }
    complaints
}

/// Handlers' ways to end, how often each was counted, and how many runs ended so.
fn runs(counted: &Figures, held: &Held) -> Vec<(String, i64, i64)> {
    let handlers = counted.values("hookyard_events_total", "handler");
    let named = held.ended.keys().map(|(handler, _)| handler.as_str());
    let mut handlers: BTreeSet<&str> = handlers.into_iter().chain(named).collect();
    // Where no handler ran there is no run.
    handlers.retain(|handler| !["none", "unrouted", "undecodable"].contains(handler));
    let mut runs = Vec::new();
    for handler in handlers {
        for outcome in ["done", "skipped", "dead_lettered"] {
            let there = held.ended.get(&(handler.to_owned(), outcome.to_owned()));
            let there = there.copied().unwrap_or_default();
            let what = format!("{handler} {outcome}");
            runs.push((what, counted.events(handler, outcome), there));
        }
    }
    runs
}

fn ok(name: &str, label: &str, value: &str, counted: &Figures) -> i64 {
    counted.sum(name, &[(label, value), ("outcome", "ok")])
}

/// Counts refusals that no healthy caller is a reason for, by reason.
fn refusals(counted: &Figures) -> Vec<(&str, i64)> {
    let name = "hookyard_push_rejected_total";
    let reasons = counted.values(name, "reason").into_iter();
    let reasons = reasons.filter(|reason| !EXCUSED.contains(reason));
    let count = |reason| (reason, counted.sum(name, &[("reason", reason)]));
    reasons.map(count).filter(|(_, count)| *count > 0).collect()
}

/// Before the calm all callers were healthy.
pub(super) fn refused(counted: &Figures) -> Vec<String> {
    let told = |(reason, count)| format!("{count} deliveries refused: {reason}");
    refusals(counted).into_iter().map(told).collect()
}

/// What was sent in the calm.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Deliveries that hold no good token.
    pub(super) forged: i64,
    pub(super) unrouted: i64,
    pub(super) undecodable: i64,
    /// Events that had ended.
    pub(super) repeats: i64,
    /// Deliveries sent again because they were not acknowledged.
    pub(super) again: i64,
}

/// Nobody died between the two looks: every counter has grown by what is there more. Where
/// something was handed back, or an answer came too late, the count may fall behind by that much.
pub(super) fn agree(
    (counted_before, held_before): (&Figures, &Held),
    (counted, held): (&Figures, Held),
    sent: &Sent,
) -> Vec<String> {
    let (counted, held) = (counted.since(counted_before), held.since(held_before));
    let mut complaints = Vec::new();
    let mut between = |what: &str, counted: i64, there: i64, slack: i64| {
        if there < counted || there > counted + slack {
            complaints.push(format!(
                "{what}, in the calm: {counted} counted, and there are {there}"
            ));
        }
    };
    let retries = counted.handed_back() + sent.again;
    for (what, counted, there) in runs(&counted, &held) {
        between(&what, counted, there, retries);
    }
    let outcome = |outcome| counted.sum("hookyard_events_total", &[("outcome", outcome)]);
    let buried = counted.events("undecodable", "dead_lettered");
    between("undecodable", buried, held.undecodable, retries);
    between(
        "undecodable, of those sent",
        buried,
        sent.undecodable,
        retries,
    );
    // Counted when it arrives: before it is kept, and again when it comes again.
    let unrouted = outcome("unrouted");
    between("unrouted", held.unrouted, unrouted, retries);
    between("unrouted, of those sent", held.unrouted, sent.unrouted, 0);
    // A lane that changes hands is a reason for more of them.
    between("repeats", sent.repeats, outcome("duplicate"), i64::MAX / 2);
    let forged = refusals(&counted).into_iter().map(|(_, count)| count);
    between("forged deliveries", forged.sum(), sent.forged, 0);
    for (topic, (copies, ids)) in &held.taken {
        let ok = ok("hookyard_published_total", "topic", topic, &counted);
        let all = counted.sum("hookyard_published_total", &[("topic", topic)]);
        between(&format!("published to {topic}"), ok, *copies, all - ok);
        let rows = held.outbox.get(topic).copied().unwrap_or_default();
        between(&format!("different ones in {topic}"), rows, *ids, 0);
    }
    for upstream in ["chargebee", "hasura"] {
        let name = "hookyard_upstream_requests_total";
        let ok = ok(name, "upstream", upstream, &counted);
        let all = counted.sum(name, &[("upstream", upstream)]);
        let requests = held.requests.get(upstream).copied().unwrap_or_default();
        between(&format!("requests to {upstream}"), ok, requests, all - ok);
    }
    complaints
}

/// Gauges that must say this once nothing is left over.
pub(super) fn at_rest(figures: &Figures) -> bool {
    figures.sum("hookyard_outbox_pending", &[]) == 0
        && figures.sum("hookyard_outbox_oldest_age_seconds", &[]) == 0
        && figures.sum("hookyard_database_up", &[]) == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(text: &str) -> Figures {
        Figures::parse(text)
    }

    fn ended(count: i64) -> Held {
        Held {
            ended: [(("h".to_owned(), "done".to_owned()), count)].into(),
            ..Held::default()
        }
    }

    const TWO: &str = "# TYPE hookyard_events_total counter\n\
                       hookyard_events_total{handler=\"h\",outcome=\"done\"} 2\n";

    #[test]
    fn a_run_counted_twice_is_more_than_there_is() {
        assert!(never_more(&counted(TWO), &ended(2)).is_empty());
        // Those that died took their counts along.
        assert!(never_more(&counted(TWO), &ended(3)).is_empty());
        assert_eq!(never_more(&counted(TWO), &ended(1)).len(), 1);
    }

    #[test]
    fn in_the_calm_a_count_may_not_fall_behind_either() {
        let calm = |there, counted: &Figures| {
            let before = (&Figures::default(), &Held::default());
            agree(before, (counted, ended(there)), &Sent::default())
        };
        assert!(calm(2, &counted(TWO)).is_empty());
        assert_eq!(calm(1, &counted(TWO)).len(), 1);
        assert_eq!(calm(3, &counted(TWO)).len(), 1);
        // A handler that nobody counted at all.
        assert_eq!(calm(3, &Figures::default()).len(), 1);
        let handed_back = "hookyard_events_total{handler=\"h\",outcome=\"retry\"} 1";
        let late = format!("{TWO}{handed_back}");
        assert!(calm(3, &counted(&late)).is_empty());
    }

    #[test]
    fn what_no_caller_is_a_reason_for_is_told() {
        let text = |reason| format!("hookyard_push_rejected_total{{reason=\"{reason}\"}} 3");
        assert!(refused(&counted(&text("overloaded"))).is_empty());
        assert_eq!(refused(&counted(&text("bad_signature"))).len(), 1);
    }
}
