//! The service's routes: the push door, and our own.

use std::sync::Arc;

use axum::Router;
use axum::routing::post;
use serde_json::json;

use super::App;
use crate::api::{self, ApiState, HealthDetail};
use crate::ingress::{PushDoor, Refusals, TokenVerifier, receive};

impl App {
    pub(super) fn routes(&self, verifier: &Arc<dyn TokenVerifier>) -> Router {
        let server = &self.config.server;
        let durable = self.durable.as_ref();
        let door = PushDoor {
            pipeline: self.pipeline.clone(),
            keeper: durable.and_then(|durable| durable.keeper(&self.config)),
            verifier: verifier.clone(),
            gate: self.gate.clone(),
            max_body_bytes: server.max_body_bytes,
            body_timeout: server.body_timeout,
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            refusals: Refusals::default(),
        };
        let push = Router::new()
            .route("/push", post(receive))
            .with_state(Arc::new(door));
        api::router(self.api(verifier.clone()), push)
    }

    fn api(&self, verifier: Arc<dyn TokenVerifier>) -> ApiState {
        let durable = self.durable.as_ref();
        let watch = durable.map(|durable| durable.watch.clone());
        ApiState {
            metrics: self.metrics.clone(),
            server: self.config.server.clone(),
            before_metrics: {
                let (pipeline, watch) = (self.pipeline.clone(), watch.clone());
                Arc::new(move || {
                    pipeline.refresh_metrics();
                    if let Some(watch) = &watch {
                        watch.refresh_metrics();
                    }
                })
            },
            handlers: {
                let pipeline = self.pipeline.clone();
                Arc::new(move || {
                    json!({
                        "handlers": pipeline.handlers(),
                        "unrouted": pipeline.unrouted_kinds(),
                    })
                })
            },
            detail: Some(HealthDetail {
                service: self.config.log.service.clone(),
                clock: self.clock.clone(),
                started: self.clock.monotonic(),
                worker: self.config.worker.clone(),
            }),
            desk: durable.map(|durable| durable.api(&self.config, &self.pipeline)),
            ready: {
                let stop = self.stop.clone();
                Arc::new(move || match () {
                    () if stop.is_cancelled() => Err("shutting down"),
                    () if !verifier.ready() => Err("the token issuer's keys are not here yet"),
                    () => watch.as_ref().map_or(Ok(()), |watch| watch.ready()),
                })
            },
        }
    }
}
