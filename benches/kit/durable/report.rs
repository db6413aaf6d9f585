//! The middle of the rounds, and the targets.

use std::collections::BTreeMap;

/// A case and who was measured.
pub(crate) type Key = (&'static str, &'static str);

/// What was measured in one round.
#[derive(Default)]
pub(crate) struct Figures(Vec<(Key, f64)>);

impl Figures {
    pub(crate) fn set(&mut self, key: Key, value: f64) {
        println!("  {:<28}{:<18}{value:>12.2}", key.0, key.1);
        self.0.push((key, value));
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

    /// The middle of the rounds' figures.
    fn middle(&self, key: Key) -> Option<f64> {
        self.0.get(&key).map(|values| middle(values.clone()))
    }

    /// The middle of the rounds' ratios: figures of one round are compared with each other.
    fn ratio(&self, a: Key, b: Key) -> Option<f64> {
        let (a, b) = (self.0.get(&a)?, self.0.get(&b)?);
        Some(middle(a.iter().zip(b).map(|(a, b)| a / b).collect()))
    }

    pub(crate) fn print(&self, rounds: usize) {
        println!("\nmiddle of {rounds} rounds");
        for key in self.0.keys() {
            let value = self.middle(*key).unwrap_or_default();
            println!("{:<28}{:<18}{value:>12.2}", key.0, key.1);
        }
        println!("\n{:<50}{:>10}", "target", "measured");
        for (name, value, target) in [
            (
                "drain, no order / graphile-worker",
                self.ratio(("drain, no order", "ours"), ("drain, no order", "graphile")),
                1.0,
            ),
            (
                "drain, ordered by aggregate / its unordered drain",
                self.ratio(
                    ("drain, 2,000 aggregates", "ours"),
                    ("drain, no order", "graphile"),
                ),
                1.0,
            ),
            (
                "drain, both ordered",
                self.ratio(
                    ("drain, 1,000 rows of 100", "ours"),
                    ("drain, 1,000 rows of 100", "graphile"),
                ),
                1.0,
            ),
            (
                "durable push / stateless, 32 connections",
                self.ratio(
                    ("push, skip, 32", "durable"),
                    ("push, skip, 32", "stateless"),
                ),
                0.35,
            ),
            (
                "durable push / stateless, 256 connections",
                self.ratio(
                    ("push, skip, 256", "durable"),
                    ("push, skip, 256", "stateless"),
                ),
                0.35,
            ),
            (
                "drain on top of the history / of 10,000 rows",
                self.ratio(
                    ("drain on top", "all rows"),
                    ("drain on top", "10,000 rows"),
                ),
                0.8,
            ),
            (
                "relay on top of the history / of 10,000 rows",
                self.ratio(
                    ("relay on top", "all rows"),
                    ("relay on top", "10,000 rows"),
                ),
                0.8,
            ),
            (
                "push on top of the history / of 10,000 rows",
                self.ratio(("push on top", "all rows"), ("push on top", "10,000 rows")),
                0.8,
            ),
        ] {
            if let Some(value) = value {
                line(name, value, target, value >= target, "at least");
            }
        }
        if let Some(p50) = self.middle(("idle, p50 ms", "ours")) {
            line(
                "insert to handled when idle, p50 ms",
                p50,
                10.0,
                p50 <= 10.0,
                "at most",
            );
        }
    }
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn line(name: &str, value: f64, target: f64, met: bool, word: &str) {
    let verdict = if met { "ok" } else { "MISSED" };
    println!("{name:<50}{value:>10.2}   {word} {target:<8}{verdict}");
}
