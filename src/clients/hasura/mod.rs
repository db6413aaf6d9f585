//! Hasura's GraphQL API: one `.graphql` file per operation, checked against the schema when this
//! is compiled.

mod reply;

pub mod scalars;

use std::sync::Arc;

use graphql_client::{GraphQLQuery, QueryBody};
use http::header::ACCEPT;
use http::{HeaderName, HeaderValue};
use secrecy::ExposeSecret;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::Call;
use super::http::{Policy, Request, SetupError, Upstream};
use crate::clock::SharedClock;
use crate::config::HasuraConfig;
use crate::error::{Error, Result};
use crate::event::{CAUSE_VARIABLE, DEPTH_VARIABLE};
use crate::failpoint;
use crate::telemetry::Metrics;

const SERVICE: &str = "hasura";
const ADMIN_SECRET: HeaderName = HeaderName::from_static("x-hasura-admin-secret");
const DEPTH: HeaderName = HeaderName::from_static(DEPTH_VARIABLE);
const CAUSE: HeaderName = HeaderName::from_static(CAUSE_VARIABLE);
const JSON: &str = "application/json";

#[derive(GraphQLQuery)]
#[graphql(
    schema_path = "graphql/schema.graphql",
    query_path = "graphql/contract_by_id.graphql",
    custom_scalars_module = "crate::clients::hasura::scalars",
    skip_serializing_none
)]
struct ContractById;

#[derive(GraphQLQuery)]
#[graphql(
    schema_path = "graphql/schema.graphql",
    query_path = "graphql/link_subscription.graphql",
    custom_scalars_module = "crate::clients::hasura::scalars",
    skip_serializing_none
)]
struct LinkSubscription;

/// What a contract's row says about its subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContractLink {
    /// The contract.
    pub id: String,
    /// Its status at present, which may be newer than the event.
    pub status: Option<String>,
    /// The Chargebee subscription written back to it, once it was.
    pub chargebee_subscription_id: Option<String>,
}

/// One Hasura.
#[derive(Debug)]
pub struct Hasura {
    upstream: Upstream,
    clock: SharedClock,
}

impl Hasura {
    /// Makes a client with the default [`Policy`].
    ///
    /// # Errors
    /// [`SetupError`] when URL or secret cannot be used.
    pub fn new(
        config: &HasuraConfig,
        metrics: Arc<Metrics>,
        clock: SharedClock,
    ) -> Result<Self, SetupError> {
        Self::with_policy(config, metrics, clock, Policy::default())
    }

    /// Makes a client.
    ///
    /// # Errors
    /// As [`Hasura::new`].
    pub fn with_policy(
        config: &HasuraConfig,
        metrics: Arc<Metrics>,
        clock: SharedClock,
        policy: Policy,
    ) -> Result<Self, SetupError> {
        let mut secret =
            HeaderValue::from_str(config.admin_secret.expose_secret()).map_err(|_| SetupError {
                service: SERVICE,
                what: "its admin secret cannot be sent in a header",
            })?;
        secret.set_sensitive(true);
        let url = &config.graphql_url;
        let upstream = Upstream::new(SERVICE, url, metrics, Arc::clone(&clock), policy)?
            .with_header(ADMIN_SECRET, secret)
            .with_header(ACCEPT, HeaderValue::from_static(JSON))
            .passing_trace_on();
        Ok(Self { upstream, clock })
    }

    /// Returns the API as seen by one run of one handler.
    pub fn on_behalf_of<'a>(&'a self, call: &'a Call) -> HasuraCalls<'a> {
        HasuraCalls { hasura: self, call }
    }

    /// Asks once for nothing in particular, to see whether URL and secret are right.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn check(&self) -> Result<()> {
        let call = Call::for_check(&self.clock)?;
        let body = QueryBody {
            variables: serde_json::Map::new(),
            query: "query Check { __typename }",
            operation_name: "Check",
        };
        let request = request(&body)?.once();
        let read = reply::read::<IgnoredAny>;
        self.upstream
            .send(&call, "POST Check", request, read)
            .await?;
        Ok(())
    }
}

fn request(body: &impl Serialize) -> Result<Request> {
    let body = serde_json::to_vec(body).map_err(|_| Error::permanent("unserializable"))?;
    Ok(Request::post("", JSON, body))
}

/// Hasura on behalf of one run of one handler.
///
/// Hasura answers HTTP 200 to every operation; what an error's `extensions.code` means is listed
/// in `reply.rs` beside this file.
#[derive(Debug, Clone, Copy)]
pub struct HasuraCalls<'a> {
    hasura: &'a Hasura,
    call: &'a Call,
}

impl HasuraCalls<'_> {
    /// Reads a contract; `None` when there is none.
    ///
    /// # Errors
    /// Those of [`HasuraCalls::run`].
    pub async fn contract(&self, id: &str) -> Result<Option<ContractLink>> {
        let found = self
            .run::<ContractById>(contract_by_id::Variables { id: id.to_owned() })
            .await?;
        Ok(found.contracts_by_pk.map(|row| ContractLink {
            id: row.id,
            status: row.status,
            chargebee_subscription_id: row.chargebee_subscription_id,
        }))
    }

    /// Writes a subscription's id to its contract.
    ///
    /// # Errors
    /// [`Error::NotFound`] when no row has this id: Hasura says `null` then, not an error.
    pub async fn link_subscription(&self, contract_id: &str, subscription_id: &str) -> Result<()> {
        let changed = self
            .run::<LinkSubscription>(link_subscription::Variables {
                id: contract_id.to_owned(),
                subscription_id: subscription_id.to_owned(),
            })
            .await?;
        failpoint::reach("after_hasura");
        match changed.update_contracts_by_pk {
            Some(_) => Ok(()),
            None => Err(Error::NotFound {
                service: SERVICE,
                what: "contract",
            }),
        }
    }

    /// Runs an operation that has the same effect when it is run twice: a query, an update by
    /// key, an insert with `on_conflict`. It is tried again when it fails for the moment.
    ///
    /// A mutation that finds no row answers `null` or `affected_rows: 0`, which is not an error
    /// here: the caller decides.
    ///
    /// # Errors
    /// Any error of [`Upstream::send`].
    pub async fn run<Q: GraphQLQuery>(&self, variables: Q::Variables) -> Result<Q::ResponseData> {
        let body = Q::build_query(variables);
        let mut request = request(&body)?.repeatable();
        if !body.query.trim_start().starts_with("mutation") {
            request = request.reading();
        }
        self.send(body.operation_name, request).await
    }

    /// Runs an operation that must not be run twice by a retry.
    ///
    /// The event itself may still be delivered again; check the state first.
    ///
    /// # Errors
    /// Any error of [`Upstream::send`].
    pub async fn run_once<Q: GraphQLQuery>(
        &self,
        variables: Q::Variables,
    ) -> Result<Q::ResponseData> {
        let body = Q::build_query(variables);
        let request = request(&body)?;
        self.send(body.operation_name, request).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        step: &'static str,
        mut request: Request,
    ) -> Result<T> {
        // Triggers fired by this write hand both back in their events' session variables.
        let depth = self.call.depth.saturating_add(1);
        request.headers.insert(DEPTH, depth.into());
        if let Ok(cause) = HeaderValue::from_str(self.call.event_id.as_str()) {
            request.headers.insert(CAUSE, cause);
        }
        let upstream = &self.hasura.upstream;
        upstream.send(self.call, step, request, reply::read).await
    }
}
