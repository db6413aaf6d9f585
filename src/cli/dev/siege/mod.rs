//! `hookyard dev --chaos --database`: the history of `--chaos` and rows of another service, played
//! to several processes on one database that are killed and put to sleep meanwhile.

mod after;
mod ambush;
mod calm;
mod figures;
mod force;
mod ground;
mod pace;
mod rows;

use std::cell::Cell;
use std::collections::HashSet;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use self::after::Found;
use self::ambush::Ambush;
use self::calm::{Calm, Looked, Scene};
use self::force::Force;
use self::ground::Ground;
pub(super) use self::pace::Pace;
use super::chaos::{break_things, play, rules, seed_neighbours, usize_of};
use super::oracle::{Seen, Verdict, attribute, judge};
use super::plan::Plan;
use crate::brokers::Published;
use crate::cli::output::{self, Ink, Paint, Table};
use crate::clock::SystemClock;
use crate::error::BoxError;
use crate::sandbox::{
    AUDIENCE, CutAfter, Did, Fleet, PushSubscription, SERVICE_ACCOUNT, Sandbox, TOPIC,
};
use crate::store::{Store, proof};

/// Published per second, on average, and rows inserted per second beside them.
const RATE: f64 = 150.0;

/// One of so many events is a row that another service inserts.
const ROW_EVERY: u32 = 5;

/// Messages that may wait to be acknowledged before the history waits for the services.
const BACKLOG: usize = 500;

/// How long it may take, once the faults have ended, until there is less to do than before: longer
/// than the waits after failures.
const SETTLE: Duration = Duration::from_secs(90);

/// How long it may take however slowly it becomes less.
const SETTLE_AT_MOST: Duration = Duration::from_secs(600);

/// How long leases last here.
const LEASE: Duration = Duration::from_millis(1500);

/// Share of PostgreSQL's commits whose answer is lost.
const LOST_COMMITS: f64 = 0.03;

/// Topic of what handlers emit.
const EVENTS: &str = "hookyard-events";

/// Topic that gets a copy of every dead letter.
const DEAD_LETTERS: &str = "hookyard-dead-letters";

/// What is asked for.
pub(super) struct Siege {
    pub(super) events: u32,
    pub(super) seed: u64,
    /// `postgres://…`, or `sqlite://…`.
    pub(super) database: String,
    pub(super) instances: usize,
    pub(super) kills: u32,
}

impl Siege {
    /// The command that does it again.
    fn again(&self) -> String {
        let database = match self.database.starts_with("sqlite") {
            true => "sqlite://chaos.db",
            false => "\"$DATABASE_URL\"",
        };
        let Self {
            events,
            seed,
            instances,
            kills,
            ..
        } = self;
        format!(
            "hookyard dev --chaos --events {events} --seed {seed} --instances {instances} \
             --kills {kills} --database {database}"
        )
    }

    /// Who retries what push brought: both ways are worth a siege.
    fn retry_owner(&self) -> &'static str {
        match self.seed % 2 {
            0 => "pubsub",
            _ => "self",
        }
    }

    fn span(&self) -> Duration {
        Duration::from_secs_f64(f64::from(self.events) / RATE)
    }
}

/// Everything that takes part.
struct Field {
    siege: Siege,
    plan: Plan,
    rows: Vec<rows::Planned>,
    ambush: Ambush,
    calm: Calm,
    sandbox: Sandbox,
    fleet: Fleet,
    ground: Ground,
    store: Store,
    deaths: usize,
    sleeps: usize,
    /// Services that woke up while another one ran what they were about to end.
    overtaken: usize,
    /// How long it took from the last fault until everything had settled.
    settled_in: Duration,
    looked: Looked,
}

/// Plays a history and says whether the rules held.
pub(super) async fn run(siege: Siege, paint: Paint) -> Result<ExitCode, BoxError> {
    let started = Instant::now();
    let again = siege.again();
    let mut field = Field::take(siege).await?;
    output::print(&paint.ink(Ink::Bold, &field.title()));
    let mut verdict = Verdict::default();
    Box::pin(field.fight(&mut verdict)).await?;
    let found = field.look(&mut verdict).await?;
    output::print(&field.counts(&found, &verdict, paint));
    output::print(&rules(&verdict, true, paint));
    output::print(&format!(
        "\n{:.1} s; the same again: {again}",
        started.elapsed().as_secs_f64()
    ));
    field.store.close().await;
    if verdict.good() {
        field.ground.leave().await?;
        return Ok(ExitCode::SUCCESS);
    }
    let place = field.ground.whereabouts();
    output::print(&format!("the database is left as it is: {place}"));
    let logs = field.fleet.keep_logs();
    output::print(&format!("the services' logs: {}", logs.display()));
    Ok(ExitCode::FAILURE)
}

impl Field {
    async fn take(siege: Siege) -> Result<Self, BoxError> {
        let rows = siege.events / ROW_EVERY;
        let mut plan = Plan::draw_at(siege.events - rows, siege.seed, RATE);
        let rows = rows::draw(usize::try_from(rows)?, siege.span(), siege.seed);
        let ambush = Ambush::prepare(&mut plan, siege.kills > 0, siege.seed);
        let calm = Calm::prepare(&mut plan, siege.instances, siege.seed);
        let ground = Ground::take(&siege.database).await?;
        let sandbox = Sandbox::builder()
            .variable("DATABASE_URL", ground.url.clone())
            .variable("ACK_DEADLINE_MS", "6000")
            .variable("HANDLER_TIMEOUT_MS", "5000")
            .variable("LEASE_MS", LEASE.as_millis().to_string())
            .variable("ENABLE_POLLING", "true")
            .variable("POLL_INTERVAL_MS", "300")
            .variable("MAX_RETRIES", "30")
            .variable("RETRY_OWNER", siege.retry_owner())
            .variable("EVENTS_TOPIC", EVENTS)
            .variable("DEAD_LETTER_TOPIC", DEAD_LETTERS)
            .start()
            .await?;
        seed_neighbours(&plan, &sandbox);
        let settings = sandbox.config()?.store.ok_or("there is no database")?;
        let store = Store::connect(&settings, SystemClock::shared())?;
        store.migrate().await?;
        store.sync_clock().await?;
        proof::watch_ends(&store).await?;
        let program = std::env::current_exe()?;
        let fleet = Fleet::new(&program, &sandbox)
            .await?
            .variable("DATABASE_URL", ground.url_of_services.clone());
        Ok(Self {
            siege,
            plan,
            rows,
            ambush,
            calm,
            sandbox,
            fleet,
            ground,
            store,
            deaths: 0,
            sleeps: 0,
            overtaken: 0,
            settled_in: Duration::ZERO,
            looked: Looked::default(),
        })
    }

    fn title(&self) -> String {
        format!(
            "chaos: seed {}, {} pushed events ({} poison) and {} rows, {} services, {} kills, \
             retries by {}",
            self.siege.seed,
            self.siege.events - self.siege.events / ROW_EVERY,
            self.plan.poison(),
            self.rows.len(),
            self.siege.instances,
            self.siege.kills,
            self.siege.retry_owner(),
        )
    }

    /// Everything at once, then peace, until everything has settled.
    async fn fight(&mut self, verdict: &mut Verdict) -> Result<(), BoxError> {
        let (fleet, seed) = (&self.fleet, self.siege.seed);
        let (instances, kills) = (self.siege.instances, self.siege.kills);
        let mut force =
            Force::muster(fleet, instances, kills, self.siege.span(), LEASE, seed).await?;
        let pusher = self.sandbox.pusher();
        let push = format!("http://{}/push", fleet.line().address());
        pusher.subscribe(PushSubscription {
            audience: AUDIENCE.to_owned(),
            service_account: SERVICE_ACCOUNT.to_owned(),
            ack_deadline: Duration::from_millis(2500),
            min_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_millis(800),
            ..PushSubscription::new("chaos-push", TOPIC, &push)
        });
        break_things(&self.sandbox, self.sandbox.broker(), seed);
        if let Some(line) = &self.ground.line {
            line.cut_at_random(CutAfter::Commit, LOST_COMMITS, seed);
        }
        let over = Cell::new(false);
        let pace = Pace::start();
        let history = async {
            let played = play(&self.plan, pusher, &pace, BACKLOG);
            let inserted = rows::insert(&self.rows, &self.store, &pace);
            let done = tokio::try_join!(played, inserted);
            over.set(true);
            done
        };
        let (done, fought) = tokio::join!(history, force.fight(&pace, || over.get()));
        done?;
        fought?;

        let peace = Instant::now();
        self.sandbox.chargebee().faults().stop();
        self.sandbox.hasura().faults().stop();
        self.sandbox.broker().faults().stop();
        if let Some(line) = &self.ground.line {
            line.cut_at_random(CutAfter::Commit, 0.0, seed);
        }
        force.recover().await?;
        if !self.settles().await {
            verdict.lost.push(format!(
                "{} messages are still not acknowledged, or something is left over",
                pusher.pending()
            ));
        }
        self.settled_in = peace.elapsed();
        let scene = Scene {
            plan: &self.plan,
            sandbox: &self.sandbox,
            store: &self.store,
            force: &force,
        };
        self.overtaken = self.ambush.lay(&scene, fleet, verdict).await?;
        self.looked = self.calm.play(&scene, verdict).await?;
        let well = force.dismiss().await?;
        if well < instances {
            verdict
                .idle
                .push(format!("only {well} of {instances} services ended well"));
        }
        (self.deaths, self.sleeps) = (force.deaths, force.sleeps);
        Ok(())
    }

    /// Waits until nothing is left to do, as long as it becomes less, but not for ever.
    async fn settles(&self) -> bool {
        let begun = Instant::now();
        let (mut least, mut since) = (i64::MAX, begun);
        while since.elapsed() < SETTLE && begun.elapsed() < SETTLE_AT_MOST {
            // Where the database does not answer it is not known yet.
            if let Ok(owed) = proof::owed(&self.store).await {
                let pending = i64::try_from(self.sandbox.pusher().pending()).unwrap_or(i64::MAX);
                let left = pending.saturating_add(owed.sum());
                if left == 0 {
                    return true;
                }
                if left < least {
                    (least, since) = (left, Instant::now());
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        false
    }

    fn emitted(&self) -> Vec<Published> {
        self.sandbox.broker().broker().published(EVENTS)
    }

    /// Looks at everything that is left, and judges it.
    async fn look(&self, verdict: &mut Verdict) -> Result<Found, BoxError> {
        let broker = self.sandbox.broker().broker();
        let letters = broker.published(DEAD_LETTERS);
        let found = Found::look(&self.store, &self.emitted(), &letters).await?;
        let rows = || self.rows.iter().chain(&self.calm.rows);
        let row_ids: HashSet<String> = rows().map(|row| row.id.to_string()).collect();
        let pushed = |out: &Published, name: &str| !row_ids.contains(attribute(out, name));
        let (mut emitted, mut letters) = (self.emitted(), letters);
        emitted.retain(|out| pushed(out, "ce-causationid"));
        letters.retain(|out| {
            pushed(out, "hookyard-event-id") && attribute(out, "hookyard-error-code") != "unrouted"
        });
        let seen = Seen {
            sandbox: &self.sandbox,
            journal: self.sandbox.journal().entries(),
            records: self.sandbox.pusher().records(),
            emitted,
            dead_letters: letters,
            faults: self.faults(),
        };
        verdict.add(judge(&self.plan, &seen));
        rows::judge(&rows().collect::<Vec<_>>(), &found, verdict);
        after::settled(&found, verdict);
        after::ended_again(&found, verdict);
        after::order(&found, verdict);
        after::reconcile(&self.plan, &found, verdict);
        let mut words = self.fleet.logs();
        words.extend(self.looked.texts.iter().cloned());
        after::leaks(&words, &found, &self.secrets(), verdict);
        verdict.vacuous.extend(self.vacuous());
        Ok(found)
    }

    fn faults(&self) -> u64 {
        let sandbox = &self.sandbox;
        sandbox.chargebee().faults().hits()
            + sandbox.hasura().faults().hits()
            + sandbox.broker().faults().hits()
    }

    /// What must not be found in logs and dead letters.
    fn secrets(&self) -> Vec<String> {
        let of = |name| self.sandbox.variables().get(name).cloned();
        let secrets = [of("HASURA_ADMIN_SECRET"), of("CHARGEBEE_API_KEY")];
        let mut secrets: Vec<String> = secrets.into_iter().flatten().collect();
        secrets.extend(self.ground.password());
        // A value of rows, and how every token begins.
        secrets.extend(["someone@example.com".to_owned(), "eyJhbGciOi".to_owned()]);
        secrets
    }

    /// A siege in which nobody fell proves nothing.
    fn vacuous(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.siege.kills >= 3 && self.deaths == 0 {
            complaints.push("no service died".to_owned());
        }
        if self.siege.kills > 0 && self.overtaken == 0 {
            complaints.push("nobody was overtaken at the end of a run".to_owned());
        }
        if self.siege.events >= 3000 && self.ground.line.is_some() && self.ground.cuts() == 0 {
            complaints.push("no answer to a COMMIT was lost".to_owned());
        }
        complaints
    }

    fn counts(&self, found: &Found, verdict: &Verdict, paint: Paint) -> String {
        let records = self.sandbox.pusher().records();
        let deliveries = records.iter().map(|record| record.deliveries.len());
        let journal = self.sandbox.journal();
        let mut table = Table::new(&["", ""]);
        for (what, count) in [
            ("services that died", self.deaths),
            ("services that slept past their leases", self.sleeps),
            ("services overtaken at the end of a run", self.overtaken),
            (
                "answers to COMMIT that were lost",
                usize_of(self.ground.cuts()),
            ),
            (
                "faults at Chargebee, Hasura and the broker",
                usize_of(self.faults()),
            ),
            ("deliveries", deliveries.sum()),
            ("writes done", journal.count(Did::Effect)),
            (
                "writes repeated, known by their key",
                journal.count(Did::Replay),
            ),
            ("good pushed events applied", verdict.applied),
            ("rows credited", found.credits.len()),
            (
                "events published downstream, copies included",
                found.emitted.len(),
            ),
            ("dead letters", found.letters.len()),
            (
                "seconds from the last fault until all had settled",
                usize_of(self.settled_in.as_secs()),
            ),
            (
                "deliveries handed back in the calm at the end",
                usize::try_from(self.looked.handed_back).unwrap_or_default(),
            ),
        ] {
            table.row(vec![what.into(), format!("{count:>7}").into()]);
        }
        table.render(paint)
    }
}
