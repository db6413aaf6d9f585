//! Rows that another service inserts into `events`, and what has to come of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use uuid::Uuid;

use super::after::Found;
use super::pace::Pace;
use crate::cli::dev::oracle::Verdict;
use crate::error::{BoxError, Class};
use crate::store::Store;
use crate::store::proof::{self, NewRow};

/// Users whose rows have to stay in order.
const USERS: usize = 25;

/// An introduction somebody is credited for. The amount is the row's number within its user's, so
/// that the order can be told from what is published.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) id: Uuid,
    pub(super) user: Uuid,
    pub(super) intro: Uuid,
    pub(super) amount: i64,
    /// It does not fit its handler.
    pub(super) poison: bool,
    /// Its transaction takes so long, and its `created_at` says when it began.
    pub(super) slow: Duration,
    pub(super) at: Duration,
}

/// Draws `count` rows over `span`, in the order of their insertion.
pub(super) fn draw(count: usize, span: Duration, seed: u64) -> Vec<Planned> {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5EED);
    let users: Vec<Uuid> = (0..USERS).map(|_| uuid(&mut rng)).collect();
    let mut moments: Vec<f64> = (0..count)
        .map(|_| rng.random_range(0.0..span.as_secs_f64().max(0.001)))
        .collect();
    moments.sort_by(f64::total_cmp);
    let mut numbers: HashMap<Uuid, i64> = HashMap::new();
    let mut row = |at| {
        let slow = rng.random_bool(0.03);
        // A slow transaction is nobody's predecessor: its user has this row only.
        let user = match slow {
            true => uuid(&mut rng),
            false => users[rng.random_range(0..USERS)],
        };
        let number = numbers.entry(user).or_default();
        *number += 1;
        let slow = match slow {
            true => Duration::from_millis(rng.random_range(200..1500)),
            false => Duration::ZERO,
        };
        Planned {
            id: uuid(&mut rng),
            user,
            intro: uuid(&mut rng),
            amount: *number,
            poison: rng.random_bool(0.03),
            slow,
            at: Duration::from_secs_f64(at),
        }
    };
    moments.into_iter().map(&mut row).collect()
}

fn uuid(rng: &mut StdRng) -> Uuid {
    uuid::Builder::from_random_bytes(rng.random()).into_uuid()
}

impl Planned {
    fn row(&self, store: &Store) -> NewRow {
        let amount = match self.poison {
            true => json!("a lot"),
            false => json!(self.amount),
        };
        NewRow {
            id: self.id.to_string(),
            event_type: "intro.completed",
            aggregate_id: self.user.to_string(),
            payload: json!({
                "introId": self.intro, "connectorUserId": self.user,
                "completedAt": "2026-03-02T09:15:04Z", "creditsAwarded": amount,
            })
            .to_string(),
            created_at: store.now(),
        }
    }
}

/// Inserts the rows in their own time; those of one user one after the other.
pub(super) async fn insert(rows: &[Planned], store: &Store, pace: &Pace) -> Result<(), BoxError> {
    let mut of_users: BTreeMap<Uuid, Vec<&Planned>> = BTreeMap::new();
    for row in rows {
        of_users.entry(row.user).or_default().push(row);
    }
    let inserts = of_users.into_values().map(|rows| async move {
        for row in rows {
            pace.reach(row.at).await;
            // The other service's own database is well; SQLite has one writer, and it waits.
            let slow = if store.is_postgres() {
                row.slow
            } else {
                Duration::ZERO
            };
            insert_one(store, &row.row(store), slow).await?;
        }
        Ok::<(), BoxError>(())
    });
    futures_util::future::try_join_all(inserts).await?;
    Ok(())
}

/// The other service does not give up either: its database may be locked by one that sleeps.
async fn insert_one(store: &Store, row: &NewRow, slow: Duration) -> Result<(), BoxError> {
    let mut tries = 0;
    loop {
        match proof::insert_row(store, row, slow).await {
            Err(error) if error.class() == Class::Transient && tries < 20 => tries += 1,
            // It was kept when its answer was lost.
            Err(error) if error.code().as_str() == "unique_violation" && tries > 0 => return Ok(()),
            other => return Ok(other?),
        }
    }
}

/// Compares what came of the rows with what has to: each credited once, announced under one id, in
/// order for each user.
pub(super) fn judge(rows: &[&Planned], found: &Found, verdict: &mut Verdict) {
    let credited: HashMap<&str, i64> = found
        .credits
        .iter()
        .map(|(intro, amount)| (intro.as_str(), *amount))
        .collect();
    let mut announced: HashMap<&str, HashSet<&str>> = HashMap::new();
    for out in found.emitted_of("credits.awarded") {
        announced
            .entry(out.attribute("ce-causationid"))
            .or_default()
            .insert(out.attribute("ce-id"));
    }
    let letters: HashSet<&str> = found.letters.iter().map(|l| l.event_key.as_str()).collect();
    for row in rows {
        let (id, intro) = (row.id.to_string(), row.intro.to_string());
        let ids = announced.get(id.as_str()).map_or(0, HashSet::len);
        let amount = credited.get(intro.as_str()).copied();
        if row.poison {
            if !letters.contains(id.as_str()) {
                verdict.lost.push(format!("row {id}: no dead letter"));
            }
            if ids > 0 || amount.is_some() {
                verdict
                    .phantoms
                    .push(format!("row {id}: poison, and credited"));
            }
            continue;
        }
        if amount != Some(row.amount) {
            verdict
                .lost
                .push(format!("row {id}: credited {amount:?}, not {}", row.amount));
        }
        match ids {
            0 => verdict.lost.push(format!("row {id}: not announced")),
            1 => {}
            more => verdict
                .twice
                .push(format!("row {id}: announced under {more} ids")),
        }
        if letters.contains(id.as_str()) {
            verdict
                .phantoms
                .push(format!("row {id}: good, and a dead letter"));
        }
    }
    let wanted = rows.iter().filter(|row| !row.poison).count();
    if found.credits.len() > wanted {
        let what = format!("{} credits, of {wanted}", found.credits.len());
        verdict.phantoms.push(what);
    }
    order(found, verdict);
}

/// The first copies of a user's announcements carry growing amounts.
fn order(found: &Found, verdict: &mut Verdict) {
    let mut last: HashMap<&str, i64> = HashMap::new();
    let mut seen = HashSet::new();
    for out in found.emitted_of("credits.awarded") {
        if !seen.insert(out.attribute("ce-id")) {
            continue;
        }
        let data: serde_json::Value = serde_json::from_slice(&out.data).unwrap_or_default();
        let amount = data["amount"].as_i64().unwrap_or_default();
        let before = last.entry(out.attribute("ce-subject")).or_default();
        if amount <= *before {
            let user = out.attribute("ce-subject");
            verdict
                .disorder
                .push(format!("user {user}: {amount} after {before}"));
        }
        *before = amount;
    }
}
