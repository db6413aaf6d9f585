//! Chargebee's API v2: the calls the reference handlers make, and a way to make others.

mod errors;
mod form;
mod resources;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderName, HeaderValue};
use secrecy::ExposeSecret;
use serde::de::{DeserializeOwned, IgnoredAny};

pub use form::Form;
pub use resources::{Customer, CustomerDetails, Subscription};

use super::Call;
use super::http::{Policy, Request, SetupError, Upstream, segment};
use crate::clock::SharedClock;
use crate::config::{ChargebeeConfig, ProductCatalog};
use crate::error::{Error, Result};
use crate::failpoint;
use crate::telemetry::Metrics;

const SERVICE: &str = "chargebee";
const BASE_PATH: &str = "/api/v2";

/// Honoured on POST for 30 minutes; the replay is checked against path, body and headers, so
/// nothing that differs between tries (a `traceparent`, a counter) may be sent.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("chargebee-idempotency-key");

/// One Chargebee site.
#[derive(Debug)]
pub struct Chargebee {
    upstream: Upstream,
    catalog: ProductCatalog,
    clock: SharedClock,
}

impl Chargebee {
    /// Makes a client with the default [`Policy`].
    ///
    /// # Errors
    /// [`SetupError`] when URL or key cannot be used.
    pub fn new(
        config: &ChargebeeConfig,
        metrics: Arc<Metrics>,
        clock: SharedClock,
    ) -> Result<Self, SetupError> {
        Self::with_policy(config, metrics, clock, Policy::default())
    }

    /// Makes a client.
    ///
    /// # Errors
    /// As [`Chargebee::new`].
    pub fn with_policy(
        config: &ChargebeeConfig,
        metrics: Arc<Metrics>,
        clock: SharedClock,
        policy: Policy,
    ) -> Result<Self, SetupError> {
        let base = format!("{}{BASE_PATH}", config.url.trim_end_matches('/'));
        let login = STANDARD.encode(format!("{}:", config.api_key.expose_secret()));
        let mut login =
            HeaderValue::try_from(format!("Basic {login}")).map_err(|_| SetupError {
                service: SERVICE,
                what: "its API key cannot be sent in a header",
            })?;
        login.set_sensitive(true);
        let upstream = Upstream::new(SERVICE, &base, metrics, Arc::clone(&clock), policy)?
            .with_header(AUTHORIZATION, login)
            .with_header(ACCEPT, HeaderValue::from_static("application/json"));
        Ok(Self {
            upstream,
            catalog: config.product_catalog,
            clock,
        })
    }

    /// Returns the API as seen by one run of one handler.
    pub fn on_behalf_of<'a>(&'a self, call: &'a Call) -> ChargebeeCalls<'a> {
        ChargebeeCalls {
            chargebee: self,
            call,
        }
    }

    /// Asks once for something cheap, to see whether URL and key are right.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn check(&self) -> Result<()> {
        self.look("GET /subscriptions", "/subscriptions?limit=1")
            .await
    }

    /// Asks once for something that only sites with the configured product catalogue have.
    ///
    /// # Errors
    /// [`Error::Rejected`] with code `configuration_incompatible` when the site has the other one.
    pub async fn check_catalog(&self) -> Result<()> {
        match self.catalog {
            ProductCatalog::V1 => self.look("GET /plans", "/plans?limit=1").await,
            ProductCatalog::V2 => self.look("GET /items", "/items?limit=1").await,
        }
    }

    async fn look(&self, step: &'static str, path: &'static str) -> Result<()> {
        let call = Call::for_check(&self.clock)?;
        let request = Request::get(path).once();
        self.upstream
            .send(&call, step, request, |answer| {
                if answer.status.is_success() {
                    answer.json::<IgnoredAny>().map(drop)
                } else {
                    Err(errors::error_of(answer, "site"))
                }
            })
            .await
    }
}

/// Chargebee on behalf of one run of one handler.
///
/// Every method may fail with any error of [`Upstream::send`]; what an `api_error_code` means is
/// listed in `errors.rs` beside this file. An id that cannot be one segment of a path is refused
/// as permanent `bad_id`.
#[derive(Debug, Clone, Copy)]
pub struct ChargebeeCalls<'a> {
    chargebee: &'a Chargebee,
    call: &'a Call,
}

impl ChargebeeCalls<'_> {
    /// Reads a subscription.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none.
    pub async fn subscription(&self, id: &str) -> Result<Subscription> {
        let path = format!("/subscriptions/{}", segment(id)?);
        let found: resources::SubscriptionReply = self
            .get("GET /subscriptions/{id}", path, "subscription")
            .await?;
        Ok(found.subscription)
    }

    /// Writes a contract's id to the custom field `cf_contract_id` of a subscription.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such subscription.
    pub async fn link_contract(
        &self,
        subscription_id: &str,
        contract_id: &str,
    ) -> Result<Subscription> {
        let id = segment(subscription_id)?;
        let (step, path) = match self.chargebee.catalog {
            ProductCatalog::V1 => ("POST /subscriptions/{id}", format!("/subscriptions/{id}")),
            ProductCatalog::V2 => (
                "POST /subscriptions/{id}/update_for_items",
                format!("/subscriptions/{id}/update_for_items"),
            ),
        };
        let form = Form::new().text("cf_contract_id", contract_id);
        let changed: resources::SubscriptionReply =
            self.post(step, path, "subscription", form).await?;
        Ok(changed.subscription)
    }

    /// Lets a subscription end with its current term.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such subscription; [`Error::Rejected`] with code
    /// `invalid_state_for_request` when it cannot be cancelled, also because it is already.
    pub async fn cancel_at_term_end(&self, subscription_id: &str) -> Result<Subscription> {
        let id = segment(subscription_id)?;
        let (step, path) = match self.chargebee.catalog {
            ProductCatalog::V1 => (
                "POST /subscriptions/{id}/cancel",
                format!("/subscriptions/{id}/cancel"),
            ),
            ProductCatalog::V2 => (
                "POST /subscriptions/{id}/cancel_for_items",
                format!("/subscriptions/{id}/cancel_for_items"),
            ),
        };
        let form = Form::new().flag("end_of_term", true);
        let changed: resources::SubscriptionReply =
            self.post(step, path, "subscription", form).await?;
        Ok(changed.subscription)
    }

    /// Reads a customer; `None` when there is none.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn customer(&self, id: &str) -> Result<Option<Customer>> {
        let path = format!("/customers/{}", segment(id)?);
        let found: Result<resources::CustomerReply> =
            self.get("GET /customers/{id}", path, "customer").await;
        match found {
            Ok(found) => Ok(Some(found.customer)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns details that leave everything as it is, to be filled in.
    pub fn blank_details(&self) -> CustomerDetails {
        CustomerDetails::default()
    }

    /// Creates a customer under an id of our choice.
    ///
    /// # Errors
    /// [`Error::Rejected`] with code `duplicate_entry` when the id is taken, maybe by an earlier
    /// run of ours whose answer was lost: read it again then.
    pub async fn create_customer(&self, id: &str, details: &CustomerDetails) -> Result<Customer> {
        // Checked here too, though it is no part of the path: no other call could reach it.
        segment(id)?;
        let form = details.add_to(Form::new().text("id", id));
        let step = "POST /customers";
        // The key tells customers apart, which the path does not.
        let key = format!("{step} {id}");
        let created: resources::CustomerReply = self
            .post_with_key(&key, step, "/customers".to_owned(), "customer", form)
            .await?;
        Ok(created.customer)
    }

    /// Changes the given details of a customer.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such customer.
    pub async fn update_customer(&self, id: &str, details: &CustomerDetails) -> Result<Customer> {
        let path = format!("/customers/{}", segment(id)?);
        let form = details.add_to(Form::new());
        let changed: resources::CustomerReply = self
            .post("POST /customers/{id}", path, "customer", form)
            .await?;
        Ok(changed.customer)
    }

    /// Makes any other reading call. `path` follows `/api/v2` and is encoded (see [`segment`]);
    /// `what` names the thing looked for in [`Error::NotFound`].
    ///
    /// # Errors
    /// Those of any call.
    pub async fn get<T: DeserializeOwned>(
        &self,
        step: &'static str,
        path: String,
        what: &'static str,
    ) -> Result<T> {
        self.send(step, Request::get(path), what).await
    }

    /// Makes any other writing call, under an idempotency key of event, handler and path: one
    /// run may post to one path once.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn post<T: DeserializeOwned>(
        &self,
        step: &'static str,
        path: String,
        what: &'static str,
        form: Form,
    ) -> Result<T> {
        let key = format!("POST {path}");
        self.post_with_key(&key, step, path, what, form).await
    }

    async fn post_with_key<T: DeserializeOwned>(
        &self,
        key: &str,
        step: &'static str,
        path: String,
        what: &'static str,
        form: Form,
    ) -> Result<T> {
        let request = Request::post(path, form::CONTENT_TYPE, form.into_body())
            .with_key(IDEMPOTENCY_KEY, self.call.idempotency_key(key));
        let answer = self.send(step, request, what).await;
        failpoint::reach("after_chargebee");
        answer
    }

    async fn send<T: DeserializeOwned>(
        &self,
        step: &'static str,
        request: Request,
        what: &'static str,
    ) -> Result<T> {
        self.chargebee
            .upstream
            .send(self.call, step, request, |answer| {
                if answer.status.is_success() {
                    answer.json()
                } else {
                    Err(errors::error_of(answer, what))
                }
            })
            .await
    }
}
