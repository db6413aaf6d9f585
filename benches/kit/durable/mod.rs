//! The durable half: drain of the events table beside graphile-worker, latency when idle, push
//! with a database beside push without, relay of the outbox, and all of it on top of a history.
//!
//! Everybody shares the two cores and one PostgreSQL cluster; contestants take turns in a round.

mod contestants;
mod database;
mod history;
mod meter;
mod report;

use std::env;

use crate::load::{Plan, send};
use crate::process::{Server, Upstreams};
use crate::requests::Request;
use crate::tokens::Issuer;
use contestants::{Graphile, Ours, Rows, Sink};
use database::Database;
use meter::{Meter, Spent};
use report::{DURABLE, Figures, LITTLE, MUCH, OURS, STATELESS, THEIRS, Table, Who};

const ROWS: u32 = 20_000;
const KEYS: u32 = 2_000;

/// graphile-worker needs seconds for a few hundred jobs in named queues.
const ORDERED_ROWS: u32 = 1_000;
const ORDERED_KEYS: u32 = 100;

/// Connections of the push cases: those of the stateless half, and those at which a group commit
/// has a group.
const FEW: usize = 32;
const MANY: usize = 256;

struct Bench {
    scale: f64,
    service: String,
    /// A service of the library with a handler that does nothing.
    trivial: String,
    upstreams: Upstreams,
    skip: Request,
    ours: Database,
    theirs: Database,
    sink: Sink,
}

pub(crate) fn run(service: &str, trivial: &str) {
    let number = |name: &str, default: f64| {
        env::var(name).map_or(default, |text| text.parse::<f64>().unwrap())
    };
    let cluster = env::var("BENCH_POSTGRES_URL").unwrap();
    let issuer = Issuer::new();
    let bench = Bench {
        scale: number("SCALE", 1.0),
        service: service.to_owned(),
        trivial: trivial.to_owned(),
        upstreams: Upstreams::start(&issuer.modulus()),
        skip: Request::new(&issuer.sign(0), None, "draft"),
        ours: Database::create(&cluster, "bench_hookyard"),
        theirs: Database::create(&cluster, "bench_graphile"),
        sink: Sink::new(),
    };
    let rounds = number("ROUNDS", 3.0) as usize;
    let cases = env::var("CASES").unwrap_or_default();
    let history = number("HISTORY", 1_000_000.0) as u32;
    bench.prepare();
    println!("{rounds} rounds, {ROWS} rows");

    let mut table = Table::default();
    for round in 0..rounds {
        println!("round {}", round + 1);
        for (name, case) in [
            ("drain", Bench::beside_graphile as fn(&Bench) -> Figures),
            ("push", Bench::push),
            ("relay", Bench::relay),
        ] {
            if cases.is_empty() || cases.contains(name) {
                table.add(case(&bench));
            }
        }
    }
    if history > 0 {
        let database = Database::create(&cluster, "bench_history");
        drop(bench.ours(&database, false));
        for (name, rows) in [(LITTLE, 10_000), (MUCH, history)] {
            println!("on top of a history of {rows} rows");
            history::fill(&database, rows);
            for _ in 0..rounds {
                table.add(bench.on_top(&database, name));
            }
        }
    }
    table.print(rounds);
}

impl Bench {
    /// Makes everybody's tables.
    fn prepare(&self) {
        drop(self.ours(&self.ours, false));
        drop(Graphile::start(&self.theirs, &self.sink));
    }

    /// Starts a service with a handler that does nothing.
    fn ours(&self, database: &Database, polling: bool) -> Ours {
        let variables = [
            ("DATABASE_URL", database.url.as_str()),
            ("ENABLE_POLLING", if polling { "true" } else { "false" }),
            ("BATCH_SIZE", "500"),
            ("WORKER_CONCURRENCY", "500"),
            ("LOG_LEVEL", "warn"),
            ("BENCH_SINK", &self.sink.address),
        ];
        let (trivial, first) = (&self.trivial, &self.skip);
        let server = Server::start_with(trivial, "serve", &self.upstreams, first, &variables);
        Ours::new(server)
    }

    fn beside_graphile(&self) -> Figures {
        let mut figures = Figures::default();
        let rows = (f64::from(ROWS) * self.scale) as u32;

        self.calm();
        let ours = self.ours(&self.ours, true);
        let mut drain = |name, rows: u32, kind: Rows| {
            self.ours.execute("VACUUM ANALYZE");
            let spent = ours.drain(&self.ours, kind);
            figures.set_spent(name, OURS, spent, rows);
        };
        drain("drain, no order", rows, Rows::free(rows));
        drain("drain, 2,000 aggregates", rows, Rows::keyed(rows, KEYS));
        let few = Rows::keyed(ORDERED_ROWS, ORDERED_KEYS);
        drain("drain, 1,000 rows of 100", ORDERED_ROWS, few);
        let latencies = self.sink.latencies(|at| ours.insert_one(&self.ours, at));
        figures.set(("idle, p50 ms", "ours"), latencies.quantile(0.5));
        figures.set(("idle, p99 ms", "ours"), latencies.quantile(0.99));
        drop(ours);

        self.calm();
        let theirs = Graphile::start(&self.theirs, &self.sink);
        let mut drain = |name, rows: u32, kind: Rows| {
            self.theirs.execute("VACUUM ANALYZE");
            let spent = theirs.drain(&self.theirs, kind);
            figures.set_spent(name, THEIRS, spent, rows);
        };
        drain("drain, no order", rows, Rows::free(rows));
        let few = Rows::keyed(ORDERED_ROWS, ORDERED_KEYS);
        drain("drain, 1,000 rows of 100", ORDERED_ROWS, few);
        let latencies = self
            .sink
            .latencies(|at| theirs.insert_one(&self.theirs, at));
        figures.set(("idle, p50 ms", "graphile"), latencies.quantile(0.5));
        figures.set(("idle, p99 ms", "graphile"), latencies.quantile(0.99));
        figures
    }

    fn push(&self) -> Figures {
        let mut figures = Figures::default();
        for (name, claimed, connections) in [
            ("push, skip, 32", "push, claimed, 32", FEW),
            ("push, skip, 256", "push, claimed, 256", MANY),
        ] {
            self.calm();
            let database = &self.ours;
            let (spent, sent) = self.push_to(&self.service, database, &[], connections, 30_000.0);
            figures.set_spent(name, STATELESS, spent, sent);
            let (spent, sent) = self.push_durably(&self.service, database, connections);
            figures.set_spent(name, DURABLE, spent, sent);
            let (spent, sent) = self.push_durably(&self.trivial, database, connections);
            figures.set_spent(claimed, DURABLE, spent, sent);
        }
        figures
    }

    fn push_durably(&self, service: &str, database: &Database, connections: usize) -> (Spent, u32) {
        database.execute("VACUUM ANALYZE");
        let variables = [
            ("DATABASE_URL", database.url.as_str()),
            ("BENCH_SINK", &self.sink.address),
        ];
        self.push_to(service, database, &variables, connections, 20_000.0)
    }

    /// Pushes events that are skipped.
    fn push_to(
        &self,
        service: &str,
        database: &Database,
        variables: &[(&str, &str)],
        connections: usize,
        requests: f64,
    ) -> (Spent, u32) {
        let mut all = variables.to_vec();
        all.push(("LOG_LEVEL", "warn"));
        let server = Server::start_with(service, "serve", &self.upstreams, &self.skip, &all);
        let plan = |requests: f64| Plan {
            requests: (requests * self.scale) as usize,
            connections,
            // Ids of another run would be duplicates.
            first_number: Some(u64::from(rand::random::<u32>()) << 6),
            ..Plan::once(&self.skip)
        };
        send(server.address, &[plan(2_000.0)]);
        let meter = Meter::start(database, server.id());
        let answers = &send(server.address, &[plan(requests)])[0];
        let spent = meter.stop(answers.elapsed.as_secs_f64());
        let right = answers.share(200);
        assert!(right > 0.999, "answers {:?}", answers.statuses);
        (spent, answers.statuses.values().sum::<usize>() as u32)
    }

    fn relay(&self) -> Figures {
        let mut figures = Figures::default();
        self.calm();
        let ours = self.ours(&self.ours, false);
        for (name, kind) in [
            ("relay, 2,000 keys", Rows::keyed(ROWS, KEYS)),
            ("relay, no keys", Rows::free(ROWS)),
        ] {
            self.ours.execute("VACUUM ANALYZE");
            let spent = ours.relay(&self.ours, kind);
            figures.set_spent(name, OURS, spent, ROWS);
        }
        figures
    }

    /// Drain, push and relay once more, where much has been done before.
    fn on_top(&self, database: &Database, history: Who) -> Figures {
        let mut figures = Figures::default();
        self.calm();
        database.execute("VACUUM ANALYZE");
        let ours = self.ours(database, true);
        let spent = ours.drain(database, Rows::keyed(ROWS, KEYS));
        figures.set_spent("drain on top", history, spent, ROWS);
        let spent = ours.relay(database, Rows::keyed(ROWS, KEYS));
        figures.set_spent("relay on top", history, spent, ROWS);
        drop(ours);
        let (spent, sent) = self.push_durably(&self.service, database, MANY);
        figures.set_spent("push on top", history, spent, sent);
        figures
    }

    /// Begins with a checkpoint behind, so that nobody pays for another's.
    fn calm(&self) {
        self.ours.execute("CHECKPOINT");
    }
}
