//! The middle of the rounds, and the targets.

use std::collections::BTreeMap;

use super::meter::Spent;

/// A case and what was measured of whom.
pub(crate) type Key = (&'static str, &'static str);

/// Names of somebody's figures: per second, and processor microseconds each.
pub(crate) type Who = (&'static str, &'static str);

pub(crate) const OURS: Who = ("ours, per s", "ours, cpu us");
pub(crate) const THEIRS: Who = ("graphile, per s", "graphile, cpu us");
pub(crate) const STATELESS: Who = ("stateless, per s", "stateless, cpu us");
pub(crate) const DURABLE: Who = ("durable, per s", "durable, cpu us");
pub(crate) const LITTLE: Who = ("10,000, per s", "10,000, cpu us");
pub(crate) const MUCH: Who = ("much, per s", "much, cpu us");

/// A case of one, a case of another, and what their ratio has to be.
type Target = (&'static str, (&'static str, Who), (&'static str, Who), f64);

const TARGETS: &[Target] = &[
    (
        "drain, no order / graphile-worker",
        ("drain, no order", OURS),
        ("drain, no order", THEIRS),
        1.0,
    ),
    (
        "drain, 2,000 aggregates / its drain without order",
        ("drain, 2,000 aggregates", OURS),
        ("drain, no order", THEIRS),
        1.0,
    ),
    (
        "drain, both in order",
        ("drain, 1,000 rows of 100", OURS),
        ("drain, 1,000 rows of 100", THEIRS),
        1.0,
    ),
    (
        "durable push / stateless, 32 connections",
        ("push, skip, 32", DURABLE),
        ("push, skip, 32", STATELESS),
        0.35,
    ),
    (
        "durable push / stateless, 256 connections",
        ("push, skip, 256", DURABLE),
        ("push, skip, 256", STATELESS),
        0.35,
    ),
    (
        "durable push under a claim / stateless, 32",
        ("push, claimed, 32", DURABLE),
        ("push, skip, 32", STATELESS),
        0.35,
    ),
    (
        "durable push under a claim / stateless, 256",
        ("push, claimed, 256", DURABLE),
        ("push, skip, 256", STATELESS),
        0.35,
    ),
    (
        "drain on top of the history / of 10,000 rows",
        ("drain on top", MUCH),
        ("drain on top", LITTLE),
        0.8,
    ),
    (
        "relay on top of the history / of 10,000 rows",
        ("relay on top", MUCH),
        ("relay on top", LITTLE),
        0.8,
    ),
    (
        "push on top of the history / of 10,000 rows",
        ("push on top", MUCH),
        ("push on top", LITTLE),
        0.8,
    ),
];

/// What was measured in one round.
#[derive(Default)]
pub(crate) struct Figures(Vec<(Key, f64)>);

impl Figures {
    pub(crate) fn set(&mut self, key: Key, value: f64) {
        println!("  {:<26}{:<20}{value:>12.2}", key.0, key.1);
        self.0.push((key, value));
    }

    /// Notes what so many rows or requests took.
    pub(crate) fn set_spent(&mut self, case: &'static str, who: Who, spent: Spent, count: u32) {
        self.set((case, who.0), f64::from(count) / spent.elapsed);
        self.set((case, who.1), spent.cpu * 1e6 / f64::from(count));
    }
}

/// What was measured in all rounds.
#[derive(Default)]
pub(crate) struct Table(BTreeMap<Key, Vec<f64>>);

impl Table {
    pub(crate) fn add(&mut self, figures: Figures) {
        for (key, value) in figures.0 {
            self.0.entry(key).or_default().push(value);
        }
    }

    /// The middle of the rounds' ratios: figures of one round are compared with each other.
    fn ratio(&self, a: Key, b: Key) -> Option<f64> {
        let (a, b) = (self.0.get(&a)?, self.0.get(&b)?);
        Some(middle(a.iter().zip(b).map(|(a, b)| a / b).collect()))
    }

    pub(crate) fn print(&self, rounds: usize) {
        println!("\nmiddle of {rounds} rounds");
        for (key, values) in &self.0 {
            println!("{:<28}{:<20}{:>12.2}", key.0, key.1, middle(values.clone()));
        }
        println!("\n{:<52}{:>9}{:>9}", "target", "by rate", "by cpu");
        for (name, (case, who), (other_case, other), target) in TARGETS {
            let rate = self.ratio((case, who.0), (other_case, other.0));
            let cpu = self.ratio((other_case, other.1), (case, who.1));
            if let Some((rate, cpu)) = rate.zip(cpu) {
                let met = verdict(rate >= *target);
                println!("{name:<52}{rate:>9.2}{cpu:>9.2}   at least {target:<6}{met}");
            }
        }
        if let Some(values) = self.0.get(&("idle, p50 ms", "ours")) {
            let p50 = middle(values.clone());
            let (name, met) = ("insert to handled when idle, p50 ms", verdict(p50 <= 10.0));
            println!("{name:<52}{p50:>9.2}            at most {:<7}{met}", 10);
        }
    }
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn verdict(met: bool) -> &'static str {
    if met { "ok" } else { "MISSED" }
}
