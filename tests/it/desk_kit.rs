//! A service with a handler that can be broken and mended, and a desk on its database.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use hookyard::app::App;
use hookyard::clock::SystemClock;
use hookyard::desk::{By, Desk, RedriveDetail, Runner, StartRedrive};
use hookyard::error::{Error, Result};
use hookyard::pipeline::{Completion, Context, Handler, HandlerInfo, Json, Repeated};
use hookyard::store::dead_letters::{self, NewDeadLetter};
use hookyard::store::{Pool, Store};
use serde::de::IgnoredAny;
use sqlx::AssertSqlSafe;

use crate::support::{TestApp, TestDatabase, event, eventually};

/// How [`Shipping`] fails.
#[derive(Default)]
pub(crate) struct Shipped {
    /// Refuses everything.
    pub(crate) refuses: AtomicBool,
    /// Is busy.
    pub(crate) busy: AtomicBool,
    runs: Mutex<Vec<String>>,
}

impl Shipped {
    /// The events it was run for and did not fail, in order.
    pub(crate) fn runs(&self) -> Vec<String> {
        self.runs.lock().unwrap().clone()
    }
}

/// Takes `orders.update` and domain events `order.paid`.
#[derive(Clone, Default)]
pub(crate) struct Shipping(pub(crate) Arc<Shipped>);

impl Handler for Shipping {
    const NAME: &'static str = "shipping";
    const EVENTS: &'static [&'static str] = &["orders.update", "order.paid"];
    const ABOUT: &'static str = "can be broken and mended";
    type Payload = Json<IgnoredAny>;

    async fn handle(&self, cx: &Context, _: Json<IgnoredAny>) -> Result<Completion> {
        if self.0.refuses.load(Ordering::SeqCst) {
            return Err(Error::permanent("shipping_refuses"));
        }
        if self.0.busy.load(Ordering::SeqCst) {
            return Err(Error::transient("shipping_busy"));
        }
        let id = cx.event().id.to_string();
        self.0.runs.lock().unwrap().push(id);
        Ok(Completion::Done)
    }
}

/// Writes letters to customers, which a replay must not do a second time.
#[derive(Clone, Default)]
pub(crate) struct Mailing(pub(crate) Arc<Mutex<Vec<String>>>);

impl Handler for Mailing {
    const NAME: &'static str = "mailing";
    const EVENTS: &'static [&'static str] = &["order.paid"];
    const ABOUT: &'static str = "takes no part in replays";
    const REPLAY: Repeated = Repeated::Skip;
    type Payload = Json<IgnoredAny>;

    async fn handle(&self, cx: &Context, _: Json<IgnoredAny>) -> Result<Completion> {
        self.0.lock().unwrap().push(cx.event().id.to_string());
        Ok(Completion::Done)
    }
}

/// A service with a desk beside it.
pub(crate) struct Yard {
    pub(crate) app: TestApp,
    pub(crate) desk: Desk,
    pub(crate) store: Store,
    pub(crate) shipped: Arc<Shipped>,
    pub(crate) mailed: Arc<Mutex<Vec<String>>>,
}

impl Yard {
    pub(crate) async fn on(database: &TestDatabase) -> Self {
        let (shipping, mailing) = (Shipping::default(), Mailing::default());
        let app = App::builder()
            .handler(shipping.clone())
            .handler(mailing.clone());
        let app = Box::pin(TestApp::of(app).database(database).start()).await;
        let store = database.store().await;
        let handlers: Vec<HandlerInfo> = app.running.app().pipeline().handlers();
        Self {
            app,
            desk: Desk::new(store.clone(), handlers),
            store,
            shipped: shipping.0,
            mailed: mailing.0,
        }
    }

    pub(crate) fn refuse(&self, refuse: bool) {
        self.shipped.refuses.store(refuse, Ordering::SeqCst);
    }

    /// Pushes orders that fail, and mends the handler.
    pub(crate) async fn failed_orders(&self, ids: &[&str]) {
        self.refuse(true);
        for id in ids {
            assert_eq!(self.app.push(&order(id)).await.status, 200);
        }
        self.refuse(false);
    }

    /// Runs what there is to run, beside the service's own runner.
    pub(crate) async fn run(&self) {
        let pipeline = self.app.running.app().pipeline().clone();
        let runner = Runner::new(self.store.clone(), pipeline, SystemClock::shared());
        runner.run_pending().await.unwrap();
    }

    /// Waits until a redrive is over.
    pub(crate) async fn over(&self, id: &str) -> RedriveDetail {
        let mut detail = self.desk.redrive_detail(id).await.unwrap();
        let what = || "the redrive does not end".to_owned();
        eventually(what, async || {
            detail = self.desk.redrive_detail(id).await.unwrap();
            detail.redrive.state != "running" && !detail.redrive.in_hand
        })
        .await;
        detail
    }

    /// Redrives every open dead letter.
    pub(crate) async fn redrive_all(&self) -> RedriveDetail {
        let ask = StartRedrive {
            all: true,
            per_second: Some(10_000),
            ..StartRedrive::default()
        };
        let redrive = self.desk.redrive(&ask, &operator()).await.unwrap();
        self.run().await;
        self.over(&redrive.id).await
    }
}

pub(crate) fn operator() -> By {
    By {
        actor: "someone on call".to_owned(),
        reason: "the warehouse is open again".to_owned(),
    }
}

pub(crate) fn order(id: &str) -> String {
    event(id, "orders", "UPDATE", "null", r#"{"id":1}"#)
}

/// A dead letter that fell from the sky.
pub(crate) fn letter(key: &str) -> NewDeadLetter {
    NewDeadLetter {
        event_key: key.to_owned(),
        event_type: "orders.update".to_owned(),
        source: "push",
        handler: Some("shipping".to_owned()),
        error_class: "permanent".to_owned(),
        error_code: "shipping_refuses".to_owned(),
        error_message: "not possible (shipping_refuses)".to_owned(),
        retry_count: 1,
        original: order(key).into_bytes(),
        delivery: "{}".to_owned(),
        ..NewDeadLetter::default()
    }
}

/// Runs a statement of a test's own.
pub(crate) async fn execute(store: &Store, sql: impl Into<String>) {
    let sql = AssertSqlSafe(sql.into());
    match store.pool() {
        Pool::Sqlite { write, .. } => {
            sqlx::query(sql).execute(write).await.unwrap();
        }
        Pool::Postgres(pool) => {
            sqlx::query(sql).execute(pool).await.unwrap();
        }
    }
}

/// Reads one text.
pub(crate) async fn text(store: &Store, sql: impl Into<String>) -> String {
    let sql = AssertSqlSafe(sql.into());
    match store.pool() {
        Pool::Sqlite { read, .. } => sqlx::query_scalar(sql).fetch_one(read).await.unwrap(),
        Pool::Postgres(pool) => sqlx::query_scalar(sql).fetch_one(pool).await.unwrap(),
    }
}

/// Id of the n-th row that [`processed`] makes.
pub(crate) fn row_id(n: u32) -> String {
    format!("00000000-0000-4000-8000-{n:012}")
}

/// Puts processed rows `order.paid` into the events table, one a minute, of two aggregates.
pub(crate) async fn processed(store: &Store, rows: std::ops::Range<u32>) {
    for n in rows {
        let (id, aggregate) = (row_id(n), row_id(9_000_000 + n % 2));
        let sql = format!(
            "INSERT INTO events (id, event_type, aggregate_id, aggregate_type, payload, metadata, \
             processed, created_at, generation, status) VALUES ('{id}', 'order.paid', \
             '{aggregate}', 'order', '{{\"n\":{n}}}', '{{\"correlation_id\":\"story\"}}', TRUE, \
             '2026-01-05T10:{n:02}:00.000Z', 1, 'done')"
        );
        execute(store, sql).await;
    }
}

/// Keeps dead letters directly in the table.
pub(crate) async fn keep(store: &Store, letters: &[NewDeadLetter]) {
    let mut tx = store.begin().await.unwrap();
    for letter in letters {
        dead_letters::insert(&mut tx, letter, store.now())
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
}
