//! The services under siege: they are killed, put to sleep, armed with fail points, and started
//! again.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::figures::Figures;
use super::pace::Pace;
use crate::error::BoxError;
use crate::sandbox::{Fleet, Instance};

/// Where a process can be told to die.
const POINTS: &[&str] = &[
    "before_claim",
    "after_claim",
    "after_chargebee",
    "after_hasura",
    "before_commit",
    "after_commit",
    "after_publish",
    "after_mark",
];

/// How long a service that is about to be killed may take to say what it has counted.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// Between two looks at the services.
const GLANCE: Duration = Duration::from_millis(25);

/// What happens to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Blow {
    /// It is killed.
    Kill,
    /// It is killed, and its successor dies at a point.
    KillTwice(String),
    /// It is stopped for longer than its leases last.
    Sleep(Duration),
}

/// One service's place.
struct Post {
    instance: Option<Instance>,
    /// When it is started or woken up.
    due: Option<Instant>,
    asleep: bool,
    /// It will die by itself.
    armed: bool,
    fail_at: Option<String>,
}

/// What those have counted that were killed, as last seen.
#[derive(Default)]
pub(super) struct Fallen {
    pub(super) figures: Figures,
    pub(super) texts: Vec<String>,
}

impl Fallen {
    async fn listen(&mut self, instance: &Instance) {
        let words = tokio::time::timeout(LAST_WORDS, Figures::of(instance)).await;
        if let Ok(Ok((figures, text))) = words {
            self.figures.add(&figures);
            self.texts.push(text);
        }
    }
}

/// All of them.
pub(super) struct Force<'a> {
    fleet: &'a Fleet,
    posts: Vec<Post>,
    rng: StdRng,
    /// When which service is struck.
    blows: Vec<(Duration, usize, Blow)>,
    /// Deaths, by any cause.
    pub(super) deaths: usize,
    /// Long sleeps.
    pub(super) sleeps: usize,
    pub(super) fallen: Fallen,
}

impl<'a> Force<'a> {
    /// Starts the services and draws what will happen to them.
    pub(super) async fn muster(
        fleet: &'a Fleet,
        instances: usize,
        kills: u32,
        span: Duration,
        lease: Duration,
        seed: u64,
    ) -> Result<Self, BoxError> {
        let mut rng = StdRng::seed_from_u64(seed ^ 0xF0CE);
        let mut posts = Vec::new();
        for _ in 0..instances {
            posts.push(Post {
                instance: Some(fleet.start(&[]).await?),
                due: None,
                asleep: false,
                armed: false,
                fail_at: None,
            });
        }
        let mut blows = Vec::new();
        for _ in 0..kills {
            let at = span.mul_f64(rng.random_range(0.03..0.97));
            let blow = match rng.random_range(0..10) {
                0..4 => Blow::Kill,
                4..8 => {
                    let point = POINTS[rng.random_range(0..POINTS.len())];
                    Blow::KillTwice(format!("{point}:{}", rng.random_range(1..30)))
                }
                _ => Blow::Sleep(lease.mul_f64(rng.random_range(1.2..2.0))),
            };
            blows.push((at, rng.random_range(0..instances), blow));
        }
        blows.sort_by_key(|(at, ..)| *at);
        let mut force = Self {
            fleet,
            posts,
            rng,
            blows,
            deaths: 0,
            sleeps: 0,
            fallen: Fallen::default(),
        };
        force.tell_the_line();
        Ok(force)
    }

    /// Lets everything happen, and starts again what has died, until `done` says so.
    pub(super) async fn fight(
        &mut self,
        pace: &Pace,
        done: impl Fn() -> bool,
    ) -> Result<(), BoxError> {
        let blows = std::mem::take(&mut self.blows);
        let mut blows = blows.into_iter().peekable();
        while !done() || blows.peek().is_some() {
            if let Some((_, post, blow)) = blows.next_if(|(at, ..)| pace.is_due(*at)) {
                self.strike(post, blow).await;
            }
            self.look_after().await?;
            tokio::time::sleep(GLANCE).await;
        }
        Ok(())
    }

    async fn strike(&mut self, number: usize, blow: Blow) {
        let Some(post) = self.posts.get_mut(number) else {
            return;
        };
        // Who is down already cannot be struck again.
        let Some(instance) = post.instance.as_mut().filter(|_| !post.asleep) else {
            return;
        };
        if !matches!(blow, Blow::Sleep(_)) {
            self.fallen.listen(instance).await;
        }
        match blow {
            Blow::Kill => instance.kill().await,
            Blow::KillTwice(point) => {
                post.fail_at = Some(point);
                instance.kill().await;
            }
            Blow::Sleep(length) => {
                if instance.signal("STOP").await.is_ok() {
                    self.sleeps += 1;
                    post.asleep = true;
                    post.due = Some(Instant::now() + length);
                }
            }
        }
    }

    async fn look_after(&mut self) -> Result<(), BoxError> {
        let mut changed = false;
        for post in &mut self.posts {
            let over = post.due.is_some_and(|due| due <= Instant::now());
            if post.asleep {
                if over && let Some(instance) = &post.instance {
                    instance.signal("CONT").await.ok();
                    (post.asleep, post.due) = (false, None);
                }
                continue;
            }
            if post
                .instance
                .as_mut()
                .is_some_and(|one| one.ended().is_some())
            {
                self.deaths += 1;
                changed = true;
                post.instance = None;
                let pause = Duration::from_millis(self.rng.random_range(0..800));
                post.due = Some(Instant::now() + pause);
            } else if over && post.instance.is_none() {
                changed = true;
                post.due = None;
                let armed = post.fail_at.take();
                post.armed = armed.is_some();
                let variables: Vec<_> = armed
                    .iter()
                    .map(|point| ("HOOKYARD_FAIL_AT", point.as_str()))
                    .collect();
                match self.fleet.launch(&variables).await {
                    Ok(instance) => post.instance = Some(instance),
                    // It died before it listened; the database may be cut off.
                    Err(_) => post.due = Some(Instant::now() + Duration::from_millis(200)),
                }
            }
        }
        if changed {
            self.tell_the_line();
        }
        Ok(())
    }

    /// Wakes up and starts again whoever is down, unarmed, and waits until all are ready.
    pub(super) async fn recover(&mut self) -> Result<(), BoxError> {
        for post in &mut self.posts {
            post.fail_at = None;
            if post.asleep
                && let Some(instance) = &post.instance
            {
                instance.signal("CONT").await.ok();
                (post.asleep, post.due) = (false, None);
            }
            if post.armed
                && let Some(instance) = &mut post.instance
            {
                self.fallen.listen(instance).await;
                instance.kill().await;
            }
            let dead = post
                .instance
                .as_mut()
                .is_none_or(|one| one.ended().is_some());
            if dead {
                self.deaths += usize::from(post.instance.is_some());
                post.armed = false;
                post.instance = Some(self.fleet.launch(&[]).await?);
                post.due = None;
            }
            if let Some(instance) = &mut post.instance {
                instance.wait_until_ready().await?;
            }
        }
        self.tell_the_line();
        Ok(())
    }

    /// Returns the services that are up.
    pub(super) fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.posts.iter().filter_map(|post| post.instance.as_ref())
    }

    fn tell_the_line(&mut self) {
        let addresses = self.instances().map(|one| one.address).collect();
        self.fleet.line().set_servers(addresses);
    }

    /// Ends all of them with SIGTERM.
    pub(super) async fn dismiss(&mut self) -> Result<usize, BoxError> {
        let mut well = 0;
        for post in &mut self.posts {
            if let Some(instance) = &mut post.instance {
                instance.signal("TERM").await?;
                well += usize::from(instance.wait().await?.success());
            }
        }
        Ok(well)
    }
}
