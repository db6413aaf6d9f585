//! What the worker has in hand: lanes, rows that may start, and rows that wait behind others.
//!
//! Data only, so that every step can be tried without a database.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::store::events::DueEvent;
use crate::store::{Lease, Micros};

/// After so long a lane is given back, so that the others have their turn, here or elsewhere.
const STINT: Micros = 1_000_000;

/// So long after that nothing is begun in it, so that it becomes empty; unless something in it
/// takes long, then it stays.
const CLOSING: Micros = 200_000;

/// So many rows of one aggregate wait at most; the others need not wait for all of them.
const MOST_WAITING: usize = 32;

/// So long an empty lane is kept: what comes next is found without a claim.
const LINGER: Micros = 50_000;

/// A row in hand.
pub(super) type RowInHand = Arc<DueEvent>;

/// A lane that is ours.
#[derive(Debug)]
struct HeldLane {
    lease: Lease,
    since: Micros,
    /// Rows in hand that do not wait for others.
    rows: usize,
    /// Whether it may hold due rows that are not in hand.
    more: bool,
    /// Whether it is being looked into.
    looking: bool,
    /// Whether rows were left out of the last look because of others in hand.
    passed_over: bool,
    /// Since when it has nothing to do.
    idle_since: Option<Micros>,
}

/// The rows of one aggregate: one of them may run, the others wait.
#[derive(Debug, Default)]
struct Chain {
    lane: i16,
    waiting: VecDeque<RowInHand>,
    /// Rows that may start, run, or are not marked yet.
    open: usize,
}

/// What to look for next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) lanes: Vec<i16>,
    pub(super) per_lane: usize,
    pub(super) bytes: i64,
    pub(super) without: Vec<i64>,
    pub(super) without_aggregates: Vec<String>,
}

/// Everything in hand.
#[derive(Debug, Default)]
pub(super) struct Floor {
    lanes: HashMap<i16, HeldLane>,
    ready: VecDeque<RowInHand>,
    /// Rows of which one at a time may start: each may end the process, and should not take
    /// others of its kind along.
    suspects: Vec<RowInHand>,
    /// The one of them that runs (`seq`).
    suspect: Option<i64>,
    chains: HashMap<String, Chain>,
    /// Rows in hand that are in no chain, with their lanes.
    alone: HashMap<i64, i16>,
    waiting: usize,
    running: usize,
    /// How long a lane is kept while there is work in it.
    stint: Micros,
    /// How long one is kept that has none.
    linger: Micros,
}

impl Floor {
    /// For a worker that goes on for ever.
    pub(super) fn shared() -> Self {
        Self {
            stint: STINT,
            linger: LINGER,
            ..Self::default()
        }
    }

    /// For one that works off what is there and goes.
    pub(super) fn for_once() -> Self {
        Self {
            stint: Micros::MAX,
            linger: 0,
            ..Self::default()
        }
    }

    pub(super) fn add_lanes(&mut self, leases: Vec<Lease>, now: Micros) {
        for lease in leases {
            // Rows of an earlier lease may still be running.
            let of_lane = |lane: &&i16| **lane == lease.lane;
            let alone = self.alone.values().filter(of_lane).count();
            let chains = self.chains.values().filter(|c| c.lane == lease.lane);
            let rows = alone + chains.map(|chain| chain.open).sum::<usize>();
            let held = HeldLane {
                since: now,
                rows,
                more: true,
                looking: false,
                passed_over: false,
                idle_since: None,
                lease,
            };
            self.lanes.insert(held.lease.lane, held);
        }
    }

    pub(super) fn lanes(&self) -> usize {
        self.lanes.len()
    }

    pub(super) fn leases(&self) -> Vec<Lease> {
        self.lanes.values().map(|held| held.lease).collect()
    }

    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// Returns how many rows may start.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Returns how many rows are in hand and have not run. Those that wait for their turn alone are
    /// left out: they should not keep anybody from looking for others.
    pub(super) fn loaded(&self) -> usize {
        self.ready.len() + self.waiting
    }

    /// Returns how much the rows weigh that are in hand and have not run.
    pub(super) fn weight(&self) -> i64 {
        let waiting = self.chains.values().flat_map(|chain| &chain.waiting);
        self.ready.iter().chain(waiting).map(|row| row.weight).sum()
    }

    /// Tells whether no row is in hand.
    pub(super) fn is_clear(&self) -> bool {
        self.alone.is_empty() && self.chains.is_empty()
    }

    /// Says that there may be new rows in every lane.
    pub(super) fn look_everywhere(&mut self) {
        for held in self.lanes.values_mut() {
            held.more = true;
        }
    }

    /// Chooses lanes to look into for about `rows` rows; `None` when there is none.
    pub(super) fn look(
        &mut self,
        rows: usize,
        per_lane: usize,
        bytes: i64,
        now: Micros,
    ) -> Option<Look> {
        let most = rows.div_ceil(per_lane).max(1);
        let mut lanes: Vec<(usize, i16)> = self
            .lanes
            .values()
            .filter(|held| held.more && !held.looking && held.rows <= per_lane / 2)
            .filter(|held| !held.is_over(now, self.stint))
            .map(|held| (held.rows, held.lease.lane))
            .collect();
        if lanes.is_empty() {
            return None;
        }
        lanes.sort_unstable();
        lanes.truncate(most);
        let lanes: Vec<i16> = lanes.into_iter().map(|(_, lane)| lane).collect();
        let within = |lane: &i16| lanes.contains(lane);
        let alone = self.alone.iter().filter(|(_, lane)| within(lane));
        let chains = self.chains.iter().filter(|(_, chain)| within(&chain.lane));
        let look = Look {
            per_lane,
            bytes,
            without: alone.map(|(seq, _)| *seq).collect(),
            without_aggregates: chains.map(|(aggregate, _)| aggregate.clone()).collect(),
            lanes,
        };
        for lane in &look.lanes {
            if let Some(held) = self.lanes.get_mut(lane) {
                held.more = false;
                held.looking = true;
                held.passed_over |= !look.without_aggregates.is_empty();
            }
        }
        Some(look)
    }

    /// Says that a look failed.
    pub(super) fn look_again(&mut self, look: &Look) {
        for lane in &look.lanes {
            if let Some(held) = self.lanes.get_mut(lane) {
                held.more = true;
                held.looking = false;
            }
        }
    }

    /// Takes in what was found.
    pub(super) fn take_in(&mut self, look: &Look, rows: Vec<DueEvent>) {
        // As much as was asked for: there may be more anywhere.
        let weight: i64 = rows.iter().map(|row| row.weight).sum();
        for lane in &look.lanes {
            if let Some(held) = self.lanes.get_mut(lane) {
                held.looking = false;
                held.more |= weight >= look.bytes;
            }
        }
        let mut found: HashMap<i16, usize> = HashMap::new();
        for row in rows {
            *found.entry(row.lane).or_default() += 1;
            // The lane was lost meanwhile: whoever has it now will find the row.
            let Some(held) = self.lanes.get_mut(&row.lane) else {
                continue;
            };
            let row = Arc::new(row);
            let Some(aggregate) = &row.aggregate else {
                held.rows += 1;
                self.alone.insert(row.seq, row.lane);
                self.line_up(row);
                continue;
            };
            if let Some(chain) = self.chains.get_mut(aggregate) {
                if chain.waiting.len() < MOST_WAITING {
                    chain.waiting.push_back(row);
                    self.waiting += 1;
                } else {
                    held.passed_over = true;
                }
                continue;
            }
            held.rows += 1;
            let chain = Chain {
                lane: row.lane,
                waiting: VecDeque::new(),
                open: 1,
            };
            self.chains.insert(aggregate.clone(), chain);
            self.line_up(row);
        }
        for (lane, count) in found {
            if let Some(held) = self.lanes.get_mut(&lane)
                && count >= look.per_lane
            {
                held.more = true;
            }
        }
    }

    /// Returns the next row to start. Rows of lanes that are ours no longer are let go.
    pub(super) fn start(&mut self, now: Micros) -> Option<RowInHand> {
        while let Some(row) = self.next_suspect().or_else(|| self.ready.pop_front()) {
            let held = self.lanes.get(&row.lane);
            if held.is_some_and(|held| held.lease.until > now) {
                self.running += 1;
                if row.crashed && row.attempts > 0 {
                    self.suspect = Some(row.seq);
                }
                return Some(row);
            }
            self.drop_rest(&row);
            self.let_go(&row);
        }
        None
    }

    /// Returns the one that is least likely to be at fault, unless one of them runs.
    fn next_suspect(&mut self) -> Option<RowInHand> {
        if self.suspect.is_some() {
            return None;
        }
        let all = self.suspects.iter().enumerate();
        let (index, _) = all.min_by_key(|(_, row)| row.attempts)?;
        Some(self.suspects.remove(index))
    }

    /// Says that a row has run. The next of its aggregate may start, or they are all let go.
    pub(super) fn ended(&mut self, row: &DueEvent, goes_on: bool) {
        self.running = self.running.saturating_sub(1);
        if self.suspect == Some(row.seq) {
            self.suspect = None;
        }
        if !goes_on {
            return self.drop_rest(row);
        }
        let Some(chain) = chain_of(&mut self.chains, row) else {
            return;
        };
        if let Some(next) = chain.waiting.pop_front() {
            self.waiting = self.waiting.saturating_sub(1);
            chain.open += 1;
            if let Some(held) = self.lanes.get_mut(&row.lane) {
                held.rows += 1;
            }
            self.line_up(next);
        }
    }

    fn line_up(&mut self, row: RowInHand) {
        match row.crashed && row.attempts > 0 {
            true => self.suspects.push(row),
            false => self.ready.push_back(row),
        }
    }

    /// Tells whether the row may be one that ends the process.
    pub(super) fn is_watched(&self, row: &DueEvent) -> bool {
        let held = self.lanes.get(&row.lane);
        row.crashed || held.is_some_and(|held| held.lease.left)
    }

    /// Lets go of a row: it is marked, or is to be found again.
    pub(super) fn let_go(&mut self, row: &DueEvent) {
        self.alone.remove(&row.seq);
        let mut chain_ended = false;
        if let Some(chain) = chain_of(&mut self.chains, row) {
            chain.open = chain.open.saturating_sub(1);
            chain_ended = chain.open == 0;
        }
        if chain_ended && let Some(aggregate) = &row.aggregate {
            self.chains.remove(aggregate);
        }
        if let Some(held) = self.lanes.get_mut(&row.lane) {
            held.rows = held.rows.saturating_sub(1);
            if chain_ended {
                held.more |= std::mem::take(&mut held.passed_over);
            }
        }
    }

    fn drop_rest(&mut self, row: &DueEvent) {
        let Some(chain) = chain_of(&mut self.chains, row) else {
            return;
        };
        let dropped = std::mem::take(&mut chain.waiting).len();
        self.waiting = self.waiting.saturating_sub(dropped);
        if let Some(held) = self.lanes.get_mut(&row.lane) {
            held.passed_over |= dropped > 0;
        }
    }

    /// Gives up a lane and what has not started in it; returns its lease.
    pub(super) fn give_up(&mut self, lane: i16) -> Option<Lease> {
        let held = self.lanes.remove(&lane)?;
        let of_lane = |row: &mut RowInHand| row.lane == lane;
        let mut gone: Vec<RowInHand> = self.suspects.extract_if(.., of_lane).collect();
        let (ready, rest) = std::mem::take(&mut self.ready)
            .into_iter()
            .partition(|row| row.lane == lane);
        self.ready = rest;
        gone.extend::<VecDeque<_>>(ready);
        for row in &gone {
            self.drop_rest(row);
            self.let_go(row);
        }
        for chain in self.chains.values_mut().filter(|c| c.lane == lane) {
            let dropped = std::mem::take(&mut chain.waiting).len();
            self.waiting = self.waiting.saturating_sub(dropped);
        }
        Some(held.lease)
    }

    /// Gives up everything that has not started.
    pub(super) fn stop(&mut self) {
        let ready = std::mem::take(&mut self.ready).into_iter();
        for row in ready.chain(std::mem::take(&mut self.suspects)) {
            self.drop_rest(&row);
            self.let_go(&row);
        }
        for chain in self.chains.values_mut() {
            chain.waiting.clear();
        }
        self.waiting = 0;
    }

    /// Takes new ends of leases; lanes that are not among them are lost.
    pub(super) fn renewed(&mut self, asked: &[Lease], renewed: &[Lease]) {
        for lease in asked {
            let newer = renewed.iter().find(|new| new.lane == lease.lane);
            let Some(held) = self.lanes.get_mut(&lease.lane) else {
                continue;
            };
            match newer {
                Some(newer) => held.lease = *newer,
                None if held.lease.fence == lease.fence => drop(self.give_up(lease.lane)),
                None => {}
            }
        }
    }

    /// Takes out the lanes that have nothing to do or have had their time.
    pub(super) fn give_back(&mut self, now: Micros, all: bool) -> Vec<Lease> {
        let mut leases = Vec::new();
        for held in self.lanes.values_mut() {
            if held.rows > 0 && now - held.since >= self.stint.saturating_add(CLOSING) {
                held.since = now;
            }
            let busy = held.rows > 0 || held.looking;
            if busy || (held.more && !held.is_over(now, self.stint) && !all) {
                held.idle_since = None;
                continue;
            }
            let since = *held.idle_since.get_or_insert(now);
            if all || held.is_over(now, self.stint) || now - since >= self.linger {
                leases.push(held.lease);
            }
        }
        for lease in &leases {
            self.lanes.remove(&lease.lane);
        }
        leases
    }

    /// Returns when a lane will be idle for long enough to be given back.
    pub(super) fn next_give_back(&self) -> Option<Micros> {
        let idle = self.lanes.values().filter_map(|held| held.idle_since);
        idle.min().map(|since| since + self.linger)
    }

    /// Returns the earliest end of a lease.
    pub(super) fn first_end(&self) -> Option<Micros> {
        self.lanes.values().map(|held| held.lease.until).min()
    }
}

impl HeldLane {
    fn is_over(&self, now: Micros, stint: Micros) -> bool {
        now - self.since >= stint
    }
}

fn chain_of<'a>(chains: &'a mut HashMap<String, Chain>, row: &DueEvent) -> Option<&'a mut Chain> {
    chains.get_mut(row.aggregate.as_ref()?)
}
