//! Runs every case against every server, turn by turn, and prints the ratios.
//!
//! The machine is noisy, so only figures of one round are compared, and the middle one of the
//! rounds' ratios counts.

use std::collections::BTreeMap;
use std::env;

use crate::load::{Answers, Plan, send};
use crate::process::{Server, Upstreams};
use crate::requests::Request;
use crate::tokens::{Issuer, forge};
use crate::upstreams::calls;

const CONNECTIONS: usize = 32;

/// The cases, each the rate of one kind of request unless it says otherwise.
const SKIP: &str = "skip, one token";
const SKIP_TWICE: &str = "skip by two handlers";
const FRESH: &str = "skip, new tokens";
const DUPLICATES: &str = "duplicates";
const FORGED: &str = "forged tokens";
const MIXED: &str = "good beside forged";
const FULL: &str = "full path";
const SLOW: &str = "full path, 5 ms upstreams";

/// A case and a server.
type Key = (&'static str, &'static str);

/// What was measured in one round.
type Round = BTreeMap<Key, Figure>;

#[derive(Clone, Copy)]
struct Figure {
    rate: f64,
    p50: f64,
    p99: f64,
    /// Processor microseconds of the server for each request.
    cpu: f64,
    /// The share of its core that the server had.
    busy: f64,
}

struct Bench {
    scale: f64,
    upstreams: Upstreams,
    tokens: Vec<String>,
    forged: Vec<String>,
    /// An insert, which one handler looks at.
    skip: Request,
    /// An update, which two handlers look at.
    skip_twice: Request,
    full: Request,
}

pub(crate) fn run(service: &str) {
    let rounds = number("ROUNDS", 3.0) as usize;
    let scale = number("SCALE", 1.0);
    let issuer = Issuer::new();
    let tokens = issuer.pool((20_000.0 * scale) as usize);
    let bench = Bench {
        scale,
        upstreams: Upstreams::start(&issuer.modulus()),
        forged: tokens.iter().map(|token| forge(token)).collect(),
        skip: Request::new(&tokens[0], None, "draft"),
        skip_twice: Request::new(&tokens[0], Some("draft"), "signed"),
        full: Request::new(&tokens[0], None, "active"),
        tokens,
    };
    println!(
        "body {} bytes, {CONNECTIONS} connections, {rounds} rounds",
        crate::requests::BODY_BYTES
    );

    let kit = env::current_exe().unwrap();
    let kit = kit.to_str().unwrap();
    let mut figures: Vec<Round> = Vec::new();
    let mut sizes = Vec::new();
    for _ in 0..rounds {
        let mut round = Round::new();
        bench.bare(&mut round, kit);
        bench.others(&mut round, "plain", kit, "plain");
        sizes.push(bench.others(&mut round, "ours", service, "serve"));
        figures.push(round);
    }
    report(&figures, &sizes, scale);
}

/// Sends one kind of request (`CASE`: `skip`, `skip_twice`, `full`) and lets the service end in
/// peace, so that a profiler it runs under can write what it saw.
pub(crate) fn profile(service: &str, requests: usize) {
    let issuer = Issuer::new();
    let token = issuer.sign(0);
    let upstreams = Upstreams::start(&issuer.modulus());
    let first = Request::new(&token, None, "draft");
    let request = match env::var("CASE").as_deref() {
        Ok("full") => Request::new(&token, None, "active"),
        Ok("skip_twice") => Request::new(&token, Some("draft"), "signed"),
        _ => first.clone(),
    };
    let server = Server::start(service, "serve", &upstreams, "", &first);
    let plan = Plan {
        requests,
        connections: CONNECTIONS,
        first_number: Some(1),
        ..Plan::once(&request)
    };
    let before = server.cpu();
    let answers = &send(server.address, &[plan])[0];
    let cpu = (server.cpu() - before).as_secs_f64() * 1e6 / requests as f64;
    println!("{:?}, {cpu:.1} us each", answers.statuses);
    server.terminate();
}

fn number(name: &str, default: f64) -> f64 {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Memory in megabytes, start in milliseconds.
struct Sizes {
    idle: f64,
    loaded: f64,
    start: f64,
}

impl Bench {
    fn count(&self, requests: f64) -> usize {
        (requests * self.scale) as usize
    }

    fn bare(&self, round: &mut Round, kit: &str) {
        let server = Server::start(kit, "bare", &self.upstreams, "", &self.skip);
        self.send(&server, &[self.plan(&self.skip, 10_000.0)]);
        let plan = self.plan(&self.skip, 150_000.0);
        round.insert((SKIP, "bare"), self.measure(&server, &[plan], 200));
    }

    fn others(&self, round: &mut Round, name: &'static str, program: &str, word: &str) -> Sizes {
        let server = Server::start(program, word, &self.upstreams, "", &self.skip);
        let idle = server.resident();
        self.send(&server, &[self.plan(&self.skip, 4_000.0)]);

        // Together they make 100,000 ids, whose memory is measured at the end.
        let ours = name == "ours";
        let many = if ours { 40_000.0 } else { 20_000.0 };
        let plan = self.plan(&self.skip, many);
        round.insert((SKIP, name), self.measure(&server, &[plan], 200));

        let plan = self.plan(&self.skip_twice, 10_000.0);
        round.insert((SKIP_TWICE, name), self.measure(&server, &[plan], 200));

        let fresh = Plan {
            tokens: &self.tokens,
            requests: self.tokens.len(),
            ..self.plan(&self.skip, 0.0)
        };
        round.insert((FRESH, name), self.measure(&server, &[fresh], 200));

        let again = Plan {
            first_number: None,
            ..self.plan(&self.skip, many)
        };
        round.insert((DUPLICATES, name), self.measure(&server, &[again], 200));

        let forged = |requests| Plan {
            tokens: &self.forged,
            ..self.plan(&self.skip, requests)
        };
        let plan = forged(20_000.0);
        round.insert((FORGED, name), self.measure(&server, &[plan], 401));

        let good = self.plan(&self.skip, 8_000.0);
        round.insert(
            (MIXED, name),
            self.measure(&server, &[good, forged(8_000.0)], 200),
        );

        let before = calls(self.upstreams.port);
        let plan = self.plan(&self.full, 8_000.0);
        let events = plan.requests as u64;
        round.insert((FULL, name), self.measure(&server, &[plan], 200));
        let made = calls(self.upstreams.port) - before;
        assert_eq!(
            made,
            events * 4,
            "{name} made another number of upstream calls"
        );
        let loaded = server.resident();
        let start = server.start.as_secs_f64() * 1_000.0;
        drop(server);

        let server = Server::start(program, word, &self.upstreams, "/slow", &self.skip);
        self.send(&server, &[self.plan(&self.full, 500.0)]);
        let plan = self.plan(&self.full, 4_000.0);
        round.insert((SLOW, name), self.measure(&server, &[plan], 200));
        Sizes {
            idle,
            loaded,
            start,
        }
    }

    fn plan<'a>(&self, request: &'a Request, requests: f64) -> Plan<'a> {
        Plan {
            request,
            requests: self.count(requests),
            connections: CONNECTIONS,
            tokens: &[],
            first_number: Some(0),
        }
    }

    fn send(&self, server: &Server, plans: &[Plan<'_>]) -> Vec<Answers> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let numbered: Vec<Plan<'_>> = plans
            .iter()
            .map(|plan| Plan {
                first_number: plan
                    .first_number
                    .map(|_| NEXT.fetch_add(plan.requests as u64, Ordering::Relaxed)),
                ..*plan
            })
            .collect();
        send(server.address, &numbered)
    }

    /// Runs plans at once and takes the figures of the first.
    fn measure(&self, server: &Server, plans: &[Plan<'_>], status: u16) -> Figure {
        let before = server.cpu();
        let answers = self.send(server, plans);
        let cpu = server.cpu() - before;
        let all: usize = plans.iter().map(|plan| plan.requests).sum();
        let first = &answers[0];
        let right = first.share(status);
        assert!(
            right > 0.999,
            "answers {:?} instead of {status}",
            first.statuses
        );
        Figure {
            rate: first.rate(),
            p50: first.quantile(0.5),
            p99: first.quantile(0.99),
            cpu: cpu.as_secs_f64() * 1e6 / all as f64,
            busy: cpu.as_secs_f64() / first.elapsed.as_secs_f64(),
        }
    }
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn report(rounds: &[Round], sizes: &[Sizes], scale: f64) {
    println!(
        "\n{:<28}{:<8}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "case", "server", "per s", "cpu us", "core %", "p50 ms", "p99 ms"
    );
    for key in rounds[0].keys() {
        let of =
            |get: fn(&Figure) -> f64| middle(rounds.iter().map(|round| get(&round[key])).collect());
        println!(
            "{:<28}{:<8}{:>10.0}{:>10.1}{:>10.0}{:>10.2}{:>10.2}",
            key.0,
            key.1,
            of(|f| f.rate),
            of(|f| f.cpu),
            of(|f| f.busy * 100.0),
            of(|f| f.p50),
            of(|f| f.p99),
        );
    }

    let ratio = |a: Key, b: Key, get: fn(&Figure) -> f64| {
        let of_round = |round: &Round| get(&round[&a]) / get(&round[&b]);
        middle(rounds.iter().map(of_round).collect())
    };
    let size = |get: fn(&Sizes) -> f64| middle(sizes.iter().map(get).collect());
    let most = |name: &str, value: f64, target: f64| {
        line(name, value, target, value <= target, "at most");
    };
    println!("\n{:<50}{:>10}", "target", "measured");
    for (case, base, target) in [
        (SKIP, (SKIP, "bare"), 0.5),
        (SKIP, (SKIP, "plain"), 3.0),
        (FRESH, (FRESH, "plain"), 0.95),
        (DUPLICATES, (SKIP, "bare"), 0.6),
        (FORGED, (FORGED, "plain"), 1.0),
        (MIXED, (MIXED, "plain"), 1.0),
        (FULL, (FULL, "plain"), 0.9),
    ] {
        let ours = (case, "ours");
        // A server that did not have its core for itself was slowed down by others: then its
        // rate says nothing, but the time it needed on the core still does.
        let alone = |key| rounds.iter().all(|round: &Round| round[&key].busy > 0.9);
        let (value, by) = if alone(ours) && alone(base) {
            (ratio(ours, base, |f| f.rate), "")
        } else {
            (ratio(base, ours, |f| f.cpu), ", by cpu")
        };
        let name = format!("{case} / {}{by}", base.1);
        line(&name, value, target, value >= target, "at least");
    }
    let p99 = ratio((SLOW, "ours"), (SLOW, "plain"), |f| f.p99);
    most("p99 with 5 ms upstreams / plain", p99, 1.3);
    most("resident memory idle, MB", size(|s| s.idle), 25.0);
    // 100,000 at full scale; fewer prove nothing about the target.
    let ids = (100_000.0 * scale) as usize;
    let name = format!("resident memory loaded, {ids} ids, MB");
    most(&name, size(|s| s.loaded), 80.0);
    most("start to first 200, ms", size(|s| s.start), 50.0);
}

fn line(name: &str, value: f64, target: f64, met: bool, word: &str) {
    let verdict = if met { "ok" } else { "MISSED" };
    println!("{name:<50}{value:>10.2}   {word} {target:<8}{verdict}");
}
