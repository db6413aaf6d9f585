//! What a relay holds in memory: its lanes, and per ordering key the rows that come next.
//!
//! No IO here. Rows of one key leave one at a time. A key whose first row could not be published
//! waits; of it only that row is held, so that others have room.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::store::outbox::WaitingRow;
use crate::store::{Lease, Micros};

/// Rows of one lane held at most; half of it is when more are read.
pub(super) const ROWS: usize = 256;
/// Keys of one lane that may wait for a later try before nothing more is read of it.
const WAITING: usize = 4096;
/// Bytes of one lane read at once, and the row that passes it.
pub(super) const BYTES: usize = 512 * 1024;

/// Rows with one key go to one topic in order. A row without an ordering key has its own.
pub(super) type Key = Arc<str>;

/// One place in the window, good for as long as the lease is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) lease: Lease,
    pub(super) key: Key,
}

/// A lane to be read, and from where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Want {
    pub(super) lane: i16,
    pub(super) after: i64,
    reading: u64,
}

#[derive(Debug, Default)]
pub(super) struct Window {
    lanes: HashMap<i16, Lane>,
    ready: VecDeque<(i16, Key)>,
    blocked: Vec<(Micros, i16, Key)>,
    readings: u64,
}

#[derive(Debug)]
struct Lane {
    lease: Lease,
    since: Micros,
    /// Rows up to here have been read.
    cursor: i64,
    /// Changes when the cursor goes back: what was being read then is not used.
    reading: u64,
    exhausted: bool,
    /// No more is read: others shall have their turn.
    closing: bool,
    /// Rows that are not to be taken from another reading.
    known: HashSet<i64>,
    /// Those of them that are marked, and unknown to every reading that begins now.
    settled: Vec<i64>,
    queues: HashMap<Key, Queue>,
    /// How many of them wait.
    waiting: usize,
}

#[derive(Debug, Default)]
struct Queue {
    rows: VecDeque<WaitingRow>,
    busy: bool,
    until: Option<Micros>,
    /// Later rows were left in the table.
    partial: bool,
}

impl Lane {
    fn open(&self) -> usize {
        self.known.len().saturating_sub(self.settled.len())
    }

    /// Whether all that is left waits for a later try.
    fn waits(&self) -> bool {
        self.waiting > 0 && self.waiting == self.queues.len()
    }

    fn is_empty(&self) -> bool {
        self.exhausted && self.open() == 0
    }

    fn wants(&self) -> bool {
        let room = self.open().saturating_sub(self.waiting) <= ROWS / 2 && self.waiting < WAITING;
        room && !self.exhausted && !self.closing
    }

    fn start_over(&mut self, reading: u64) {
        self.cursor = 0;
        self.exhausted = false;
        self.reading = reading;
    }
}

impl Window {
    /// Takes lanes in.
    pub(super) fn add(&mut self, leases: Vec<Lease>, now: Micros) {
        for lease in leases {
            self.readings += 1;
            let lane = Lane {
                lease,
                since: now,
                cursor: 0,
                reading: self.readings,
                exhausted: false,
                closing: false,
                known: HashSet::new(),
                settled: Vec::new(),
                queues: HashMap::new(),
                waiting: 0,
            };
            self.lanes.insert(lease.lane, lane);
        }
    }

    /// Forgets a lane that somebody else has by now, or that was given back.
    pub(super) fn lose(&mut self, lease: &Lease) {
        if self.holds(lease) {
            self.lanes.remove(&lease.lane);
        }
    }

    /// Tells whether this very lease is held.
    pub(super) fn holds(&self, lease: &Lease) -> bool {
        let held = self.lanes.get(&lease.lane);
        held.is_some_and(|lane| lane.lease.fence == lease.fence)
    }

    /// Returns all leases.
    pub(super) fn leases(&self) -> Vec<Lease> {
        self.lanes.values().map(|lane| lane.lease).collect()
    }

    /// Takes over what a renewal said of `asked`: what is missing in `renewed` is lost.
    pub(super) fn renewed(&mut self, asked: &[Lease], renewed: &[Lease]) {
        for lease in asked {
            match renewed.iter().find(|new| new.lane == lease.lane) {
                Some(new) if self.holds(lease) => {
                    let lane = self.lanes.get_mut(&lease.lane);
                    if let Some(lane) = lane {
                        lane.lease.until = new.until;
                        // Some may have been passed over while the lease was short.
                        let keys = lane.queues.keys().cloned();
                        self.ready.extend(keys.map(|key| (lease.lane, key)));
                    }
                }
                Some(_) => {}
                None => self.lose(lease),
            }
        }
    }

    /// Returns how many lanes have something to do now.
    pub(super) fn busy_lanes(&self) -> usize {
        let busy = |lane: &&Lane| !lane.waits() && !lane.is_empty();
        self.lanes.values().filter(busy).count()
    }

    /// Tells whether a lease has run out before it was renewed.
    pub(super) fn is_late(&self, now: Micros) -> bool {
        self.lanes.values().any(|lane| lane.lease.until <= now)
    }

    /// Has every lane read again for new rows.
    pub(super) fn look_again(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.exhausted = false;
        }
    }

    /// Has lanes read from their beginnings, for rows that were put back.
    pub(super) fn start_over(&mut self) {
        for lane in self.lanes.values_mut() {
            if !lane.queues.values().any(|queue| queue.partial) {
                self.readings += 1;
                lane.start_over(self.readings);
            }
        }
    }

    /// Lets lanes that were held since before `since` run out.
    pub(super) fn close_older(&mut self, since: Micros) {
        for lane in self.lanes.values_mut() {
            lane.closing |= lane.since < since && lane.waiting == 0;
        }
    }

    /// Returns the lanes to read from now on.
    pub(super) fn wants(&mut self) -> Vec<Want> {
        let mut wants = Vec::new();
        for (number, lane) in &mut self.lanes {
            if !lane.wants() {
                continue;
            }
            for seq in lane.settled.drain(..) {
                lane.known.remove(&seq);
            }
            wants.push(Want {
                lane: *number,
                after: lane.cursor,
                reading: lane.reading,
            });
        }
        wants
    }

    /// Tells whether [`Window::wants`] would return something.
    pub(super) fn is_wanting(&self) -> bool {
        self.lanes.values().any(Lane::wants)
    }

    /// Returns what to read of lanes just taken, of which the window knows nothing yet.
    pub(super) fn of_new(lease: &Lease) -> Want {
        Want {
            lane: lease.lane,
            after: 0,
            reading: 0,
        }
    }

    /// Takes in what was read of `wants`, in the order of the table.
    pub(super) fn read(&mut self, wants: &[Want], new: &[Lease], rows: Vec<WaitingRow>) {
        let mut by_lane: HashMap<i16, Vec<WaitingRow>> = HashMap::new();
        for row in rows {
            by_lane.entry(row.lane).or_default().push(row);
        }
        for want in wants {
            let rows = by_lane.remove(&want.lane).unwrap_or_default();
            let Some(lane) = self.lanes.get_mut(&want.lane) else {
                continue;
            };
            let is_new = new.iter().any(|lease| lease.lane == want.lane);
            if !is_new && want.reading != lane.reading {
                continue;
            }
            let bytes: usize = rows.iter().map(|row| row.row.data.len()).sum();
            lane.exhausted = rows.len() < ROWS && bytes < BYTES;
            for row in rows {
                lane.cursor = lane.cursor.max(row.seq);
                if lane.known.contains(&row.seq) {
                    continue;
                }
                let key = key_of(&row);
                let queue = lane.queues.entry(key.clone()).or_default();
                queue.partial |= queue.until.is_some();
                if queue.partial {
                    continue;
                }
                lane.known.insert(row.seq);
                queue.rows.push_back(row);
                if queue.rows.len() == 1 {
                    self.ready.push_back((want.lane, key));
                }
            }
        }
    }

    /// Returns the next row that may be published; its key is busy until the answer comes.
    pub(super) fn next(&mut self, now: Micros, margin: Micros) -> Option<(Place, WaitingRow)> {
        while let Some((number, key)) = self.ready.pop_front() {
            let Some(lane) = self.lanes.get_mut(&number) else {
                continue;
            };
            if lane.lease.until.saturating_sub(now) < margin {
                continue; // the renewal brings it back
            }
            let Some(queue) = lane.queues.get_mut(&key) else {
                continue;
            };
            let free = !queue.busy && queue.until.is_none();
            if let Some(row) = queue.rows.front().filter(|_| free) {
                queue.busy = true;
                let lease = lane.lease;
                return Some((Place { lease, key }, row.clone()));
            }
        }
        None
    }

    /// Takes the first row of a key out; returns whether the lane is still held.
    pub(super) fn done(&mut self, place: &Place, settled: bool) -> bool {
        if !self.holds(&place.lease) {
            return false;
        }
        let Some(lane) = self.lanes.get_mut(&place.lease.lane) else {
            return false;
        };
        let Some(queue) = lane.queues.get_mut(&place.key) else {
            return false;
        };
        queue.busy = false;
        let row = queue.rows.pop_front();
        if let Some(row) = row.filter(|_| settled) {
            lane.settled.push(row.seq);
        }
        if queue.rows.is_empty() {
            let partial = queue.partial;
            lane.queues.remove(&place.key);
            if partial {
                self.readings += 1;
                lane.start_over(self.readings);
            }
        } else {
            self.ready.push_back((place.lease.lane, place.key.clone()));
        }
        true
    }

    /// Lets a key wait until a time made of how often its first row has failed.
    pub(super) fn block(&mut self, place: &Place, until: impl FnOnce(i32) -> Micros) {
        if !self.holds(&place.lease) {
            return;
        }
        let Some(lane) = self.lanes.get_mut(&place.lease.lane) else {
            return;
        };
        let Some(queue) = lane.queues.get_mut(&place.key) else {
            return;
        };
        queue.busy = false;
        if queue.rows.len() > 1 {
            queue.partial = true;
            for row in queue.rows.drain(1..) {
                lane.known.remove(&row.seq);
            }
        }
        if let Some(row) = queue.rows.front_mut() {
            row.attempts = row.attempts.saturating_add(1);
            let until = until(row.attempts);
            queue.until = Some(until);
            lane.waiting += 1;
            self.blocked
                .push((until, place.lease.lane, place.key.clone()));
        }
    }

    /// Takes up the keys whose time has come.
    pub(super) fn unblock(&mut self, now: Micros) {
        let due = self.blocked.extract_if(.., |(until, ..)| *until <= now);
        for (_, number, key) in due.collect::<Vec<_>>() {
            let Some(lane) = self.lanes.get_mut(&number) else {
                continue;
            };
            let Some(queue) = lane.queues.get_mut(&key) else {
                continue;
            };
            if queue.until.is_some_and(|until| until <= now) {
                queue.until = None;
                lane.waiting = lane.waiting.saturating_sub(1);
                self.ready.push_back((number, key));
            }
        }
    }

    /// Returns when the next key is to be taken up.
    pub(super) fn next_unblock(&self) -> Option<Micros> {
        self.blocked.iter().map(|(until, ..)| *until).min()
    }

    /// Notes that a row is marked in the table.
    pub(super) fn settle(&mut self, lease: &Lease, seq: i64) {
        if self.holds(lease)
            && let Some(lane) = self.lanes.get_mut(&lease.lane)
        {
            lane.settled.push(seq);
        }
    }

    /// Takes out the lanes that have run out, and when `all` every one with nothing left in it.
    pub(super) fn take_empty(&mut self, all: bool) -> Vec<Lease> {
        let empty = |lane: &Lane| (lane.closing && lane.open() == 0) || (all && lane.is_empty());
        let leases: Vec<Lease> = self
            .lanes
            .values()
            .filter(|lane| empty(lane))
            .map(|lane| lane.lease)
            .collect();
        for lease in &leases {
            self.lanes.remove(&lease.lane);
        }
        leases
    }

    /// Takes out all lanes.
    pub(super) fn take_all(&mut self) -> Vec<Lease> {
        self.ready.clear();
        self.blocked.clear();
        self.lanes.drain().map(|(_, lane)| lane.lease).collect()
    }
}

fn key_of(row: &WaitingRow) -> Key {
    let row = &row.row;
    match row.ordering_key.as_deref().filter(|key| !key.is_empty()) {
        Some(key) => format!("{}\n{key}", row.topic).into(),
        None => row.message_id.as_str().into(),
    }
}
