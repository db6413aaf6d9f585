//! Handlers that do what a test tells them, and count.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hookyard::error::{Error, Result};
use hookyard::event::contracts::DomainEvent;
use hookyard::pipeline::{Completion, Context, Handler, Json};
use serde::Serialize;
use serde::de::IgnoredAny;
use tokio::sync::watch;

/// What one run of a [`Probe`] does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Behaviour {
    Succeed,
    FailTransiently,
    FailForGood,
    Panic,
    /// Waits for [`Probe::open`], then succeeds.
    WaitThenSucceed,
    /// Waits for [`Probe::open`], then fails transiently.
    WaitThenFail,
    /// Emits an event that no broker takes.
    EmitTooMuch,
}

/// A handler for `probes.update` whose runs are scripted.
#[derive(Clone)]
pub(crate) struct Probe(Arc<Inner>);

struct Inner {
    script: Mutex<VecDeque<Behaviour>>,
    runs: watch::Sender<usize>,
    running: AtomicUsize,
    most: AtomicUsize,
    open: watch::Sender<bool>,
}

impl Probe {
    pub(crate) fn that(script: impl IntoIterator<Item = Behaviour>) -> Self {
        Self(Arc::new(Inner {
            script: Mutex::new(script.into_iter().collect()),
            runs: watch::Sender::new(0),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            open: watch::Sender::new(false),
        }))
    }

    /// Returns how often it was run.
    pub(crate) fn runs(&self) -> usize {
        *self.0.runs.borrow()
    }

    /// Returns how many of its runs went on at the same time at most.
    pub(crate) fn most_at_once(&self) -> usize {
        self.0.most.load(Ordering::SeqCst)
    }

    /// Lets waiting runs go on.
    pub(crate) fn open(&self) {
        self.0.open.send_replace(true);
    }

    pub(crate) async fn wait_for_runs(&self, count: usize) {
        self.0
            .runs
            .subscribe()
            .wait_for(|runs| *runs >= count)
            .await
            .unwrap();
    }
}

#[derive(Serialize)]
struct Huge {
    text: String,
}

impl DomainEvent for Huge {
    const TYPE: &'static str = "probe.grew";

    fn subject(&self) -> String {
        "huge".to_owned()
    }
}

impl Handler for Probe {
    const NAME: &'static str = "probe";
    const EVENTS: &'static [&'static str] = &["probes.update"];
    const ABOUT: &'static str = "does what a test says";
    type Payload = Json<IgnoredAny>;

    async fn handle(&self, cx: &Context, _: Json<IgnoredAny>) -> Result<Completion> {
        let inner = &self.0;
        let behaviour = inner
            .script
            .lock()
            .unwrap()
            .pop_front()
            .expect("a run too many");
        let running = inner.running.fetch_add(1, Ordering::SeqCst) + 1;
        inner.most.fetch_max(running, Ordering::SeqCst);
        inner.runs.send_modify(|runs| *runs += 1);
        if matches!(
            behaviour,
            Behaviour::WaitThenSucceed | Behaviour::WaitThenFail
        ) {
            inner.open.subscribe().wait_for(|open| *open).await.unwrap();
        }
        inner.running.fetch_sub(1, Ordering::SeqCst);
        match behaviour {
            Behaviour::Succeed | Behaviour::WaitThenSucceed => Ok(Completion::Done),
            Behaviour::FailTransiently | Behaviour::WaitThenFail => {
                Err(Error::transient("probe_is_busy"))
            }
            Behaviour::FailForGood => Err(Error::permanent("probe_refuses")),
            Behaviour::Panic => panic!("canary-in-a-panic"),
            Behaviour::EmitTooMuch => {
                cx.emit(&Huge {
                    text: "x".repeat(11_000_000),
                })?;
                Ok(Completion::Done)
            }
        }
    }
}

/// A second handler for the same event type, which always succeeds.
#[derive(Clone, Default)]
pub(crate) struct OtherProbe(Arc<AtomicUsize>);

impl OtherProbe {
    pub(crate) fn runs(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Handler for OtherProbe {
    const NAME: &'static str = "other_probe";
    const EVENTS: &'static [&'static str] = &["probes.update"];
    const ABOUT: &'static str = "always succeeds";
    type Payload = Json<IgnoredAny>;

    async fn handle(&self, _: &Context, _: Json<IgnoredAny>) -> Result<Completion> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(Completion::Done)
    }
}
