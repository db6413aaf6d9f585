//! The one HTTP client: times out, retries what may be repeated, rests, and tells what it did.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use tracing::Instrument;
use url::Url;

use super::Call;
use super::breaker::Breaker;
pub use super::exchange::{Answer, Request, segment};
pub use super::retry::Policy;
use crate::clock::SharedClock;
use crate::error::{BoxError, Class, Code, Error, Result};
use crate::event::TraceContext;
use crate::telemetry::{Metrics, SpanKind, TraceSpan};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const USER_AGENT: &str = concat!("hookyard/", env!("CARGO_PKG_VERSION"));

/// Idle connections are closed after this long, before common load balancers (60 s) do it.
const POOL_IDLE: Duration = Duration::from_secs(50);

/// A client cannot be made of this configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("client for {service} cannot be set up: {what}")]
pub struct SetupError {
    /// Which upstream.
    pub service: &'static str,
    /// What is wrong; never a value.
    pub what: &'static str,
}

/// An API over HTTP, with its own connections, policy and breaker.
///
/// A team's own client wraps one of these as [`Chargebee`](super::chargebee::Chargebee) and
/// [`Hasura`](super::hasura::Hasura) do.
pub struct Upstream {
    service: &'static str,
    base: Url,
    headers: HeaderMap,
    passes_trace_on: bool,
    client: reqwest::Client,
    policy: Policy,
    breaker: Breaker,
    metrics: Arc<Metrics>,
    clock: SharedClock,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("service", &self.service)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl Upstream {
    /// Makes a client for the API at `base_url`. `service` is its name in metrics, logs and
    /// errors.
    ///
    /// # Errors
    /// [`SetupError`] when the URL is not one of http or https, or TLS cannot be set up.
    pub fn new(
        service: &'static str,
        base_url: &str,
        metrics: Arc<Metrics>,
        clock: SharedClock,
        policy: Policy,
    ) -> Result<Self, SetupError> {
        let fail = |what| SetupError { service, what };
        let base = Url::parse(base_url).map_err(|_| fail("its base URL is not a URL"))?;
        if !matches!(base.scheme(), "http" | "https") || base.fragment().is_some() {
            return Err(fail(
                "its base URL must be http or https without a fragment",
            ));
        }
        let client = connections(&policy).map_err(|_| fail("TLS is not available"))?;
        Ok(Self {
            service,
            base,
            headers: HeaderMap::new(),
            passes_trace_on: false,
            client,
            breaker: Breaker::new(service, &policy, Arc::clone(&clock)),
            policy,
            metrics,
            clock,
        })
    }

    /// Adds a header to every request, such as `authorization`; mark secrets as sensitive.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Sends a `traceparent` with every request, the same one on every try of it.
    ///
    /// Not for an upstream that takes a repeated request for another one when a header differs.
    #[must_use]
    pub fn passing_trace_on(mut self) -> Self {
        self.passes_trace_on = true;
        self
    }

    /// Sends a request until `read` makes something of the answer, the tries are used up or the
    /// deadline of `call` leaves no time for another.
    ///
    /// `step` is how the request is named in logs, `POST /subscriptions/{id}`: a template, never
    /// with an id in it. `read` judges complete answers of any status but 3xx.
    /// [`Error::Unavailable`] is tried again when the request may be repeated;
    /// [`Error::Unreadable`] likewise, but once.
    ///
    /// # Errors
    /// What `read` said last; [`Error::Unavailable`] when no answer came; [`Error::BreakerOpen`]
    /// without a try; [`Error::Rejected`] with code `redirect` for 3xx, which is never followed
    /// (our secrets would travel along); [`Error::OutOfTime`].
    pub async fn send<T>(
        &self,
        call: &Call,
        step: &'static str,
        mut request: Request,
        read: impl Fn(&Answer) -> Result<T>,
    ) -> Result<T> {
        call.gate.passed().await;
        let trace = call.trace.child();
        let lines = tracing::info_span!(
            "upstream",
            upstream.name = self.service,
            upstream.step = step,
            span_id = trace.span_number(),
        );
        // Made of hexadecimal digits: it always is a header value.
        if self.passes_trace_on
            && let Ok(traceparent) = HeaderValue::try_from(trace.to_string())
        {
            request.headers.insert(TRACEPARENT, traceparent);
        }
        let mut span = self.span(call, step, &request, &trace);
        let work = self.tries(call, step, &request, &read, &mut span);
        let result = work.instrument(lines).await;
        match &result {
            Ok(_) if request.writes => {
                let method = request.method.as_str();
                let what = bare(step, method);
                call.steps.note(self.service, format!("{method} {what}"));
            }
            Ok(_) => {}
            Err(error) => span.fail(error.code().as_str()),
        }
        span.end();
        result
    }

    /// Names: <https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-client-span>.
    /// The URL is left out: ids of rows are in it.
    fn span(
        &self,
        call: &Call,
        step: &'static str,
        request: &Request,
        trace: &TraceContext,
    ) -> TraceSpan {
        let method = request.method.as_str();
        let what = bare(step, method);
        let name = format_args!("{method} {what}");
        let tracer = &call.tracer;
        let mut span = tracer.span(SpanKind::Client, name, trace, Some(&call.trace));
        span.set("http.request.method", method);
        span.set_some("server.address", self.base.host_str());
        span.set_some("server.port", self.base.port_or_known_default());
        span.set("upstream.name", self.service);
        span.set("upstream.step", what);
        span
    }

    async fn tries<T>(
        &self,
        call: &Call,
        step: &'static str,
        request: &Request,
        read: &impl Fn(&Answer) -> Result<T>,
        span: &mut TraceSpan,
    ) -> Result<T> {
        let url = self.url(&request.path)?;
        let mut resent = 0_u32;
        let mut waits = self.policy.waits();
        let mut was_unreadable = false;
        loop {
            let error = match self.attempt(call, step, &url, request, read, span).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let unreadable = matches!(error, Error::Unreadable { .. });
            let again = matches!(error, Error::Unavailable { .. }) || unreadable;
            if !again || !request.repeatable || (unreadable && was_unreadable) {
                return Err(error);
            }
            was_unreadable |= unreadable;
            let wait = match self.next_wait(call, waits.next(), &error) {
                Ok(wait) => wait,
                Err(rest) => return Err(self.hand_back(error, rest)),
            };
            tracing::info!(
                code = %error.code(),
                wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                "upstream is tried again"
            );
            call.deadline.clock().sleep(wait).await;
            resent += 1;
            span.set("http.request.resend_count", resent);
        }
    }

    /// Returns how long to wait before the next try, or that there is none, with the rest of an
    /// open breaker.
    fn next_wait(
        &self,
        call: &Call,
        wait: Option<Duration>,
        error: &Error,
    ) -> Result<Duration, Option<Duration>> {
        if let Some(rest) = self.breaker.resting() {
            return Err(Some(rest));
        }
        let wait = wait.ok_or(None)?;
        let wait = wait.max(error.retry_after().unwrap_or_default());
        if wait < call.deadline.remaining() {
            Ok(wait)
        } else {
            Err(None)
        }
    }

    /// Turns the error of the last try into one that asks for a later delivery.
    fn hand_back(&self, error: Error, rest: Option<Duration>) -> Error {
        let retry_after = error.retry_after().max(rest);
        let code = error.code();
        let source = match error {
            Error::Unavailable { source, .. } => source,
            // Unreadable once only: that it will stay so has not been shown yet.
            other => Some(Box::new(other) as BoxError),
        };
        Error::Unavailable {
            service: self.service,
            code,
            retry_after,
            source,
        }
    }

    async fn attempt<T>(
        &self,
        call: &Call,
        step: &'static str,
        url: &Url,
        request: &Request,
        read: &impl Fn(&Answer) -> Result<T>,
        span: &mut TraceSpan,
    ) -> Result<T> {
        let time = self.policy.try_timeout.min(call.deadline.remaining());
        if time.is_zero() {
            return Err(Error::OutOfTime { during: step });
        }
        let permit = self.breaker.admit().map_err(|retry_after| {
            self.count("breaker_open");
            Error::BreakerOpen {
                service: self.service,
                retry_after,
            }
        })?;
        let start = self.clock.monotonic();
        let answer = tokio::time::timeout(time, self.exchange(url, request)).await;
        // A try our own deadline left hardly any time for says nothing about them.
        let cut_short = answer.is_err() && time * 4 < self.policy.try_timeout;
        let answer = answer.unwrap_or_else(|_| Err(self.unavailable("timeout", None)));
        let took = self.clock.monotonic().saturating_duration_since(start);
        let status = answer.as_ref().ok().map(|answer| answer.status.as_u16());
        span.set_some("http.response.status_code", status);
        let result = answer.and_then(|answer| self.judge(&answer, step, read));
        match &result {
            Err(_) if cut_short => drop(permit),
            Err(error) if is_illness(error) => permit.failed(),
            Ok(_) | Err(_) => permit.succeeded(),
        }
        let outcome = result.as_ref().map_or_else(outcome_of, |_| "ok");
        self.count(outcome);
        self.metrics
            .upstream_duration
            .with_label_values(&[self.service])
            .observe(took.as_secs_f64());
        self.tell(step, request, status, result.as_ref().err(), took);
        result
    }

    /// Gets one complete answer.
    async fn exchange(&self, url: &Url, request: &Request) -> Result<Answer> {
        let mut builder = self
            .client
            .request(request.method.clone(), url.clone())
            .headers(self.headers.clone())
            .headers(request.headers.clone());
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        let lost = |error| self.lost(error);
        let mut response = builder.send().await.map_err(lost)?;
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        let announced = response.content_length().unwrap_or_default();
        let mut too_large = announced > self.policy.max_answer_bytes as u64;
        let mut body = BytesMut::new();
        while !too_large && let Some(chunk) = response.chunk().await.map_err(lost)? {
            too_large = body.len() + chunk.len() > self.policy.max_answer_bytes;
            if body.is_empty() && !too_large {
                // Nearly every answer is one chunk, which is not copied then.
                body = BytesMut::from(chunk);
            } else if !too_large {
                body.extend_from_slice(&chunk);
            }
        }
        let answer = Answer {
            service: self.service,
            status,
            headers,
            body: if too_large {
                Bytes::new()
            } else {
                body.freeze()
            },
        };
        if too_large && status.is_success() {
            return Err(answer.unreadable("answer_too_large"));
        }
        Ok(answer)
    }

    fn judge<T>(
        &self,
        answer: &Answer,
        step: &'static str,
        read: &impl Fn(&Answer) -> Result<T>,
    ) -> Result<T> {
        if answer.status.is_redirection() {
            tracing::error!(
                alert = "upstream_redirect",
                upstream.name = self.service,
                upstream.step = step,
                "upstream redirects, which is not followed; check its base URL"
            );
            return Err(answer.rejected(Code::new("redirect")));
        }
        let mut error = match read(answer) {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if let Error::Unavailable { retry_after, .. } = &mut error
            && retry_after.is_none()
        {
            *retry_after = answer.retry_after(self.clock.now());
        }
        if let Error::Credentials { code, .. } = &error {
            tracing::error!(
                alert = "upstream_auth",
                upstream.name = self.service,
                upstream.step = step,
                %code,
                "upstream refuses our credentials"
            );
        }
        Err(error)
    }

    /// Appends an encoded path to the base URL.
    fn url(&self, path: &str) -> Result<Url> {
        if path.is_empty() {
            return Ok(self.base.clone());
        }
        let base = self.base.as_str().trim_end_matches('/');
        let text = format!("{base}{path}");
        // A path that parsing changes was not encoded, or climbs out of where it belongs; one
        // without its slash could name another host.
        match Url::parse(&text) {
            Ok(url)
                if path.starts_with('/')
                    && self.base.query().is_none()
                    && url.fragment().is_none()
                    && url.as_str() == text =>
            {
                Ok(url)
            }
            Ok(_) | Err(_) => Err(Error::permanent("bad_path")),
        }
    }

    fn lost(&self, error: reqwest::Error) -> Error {
        let code = if error.is_timeout() {
            "connect_timeout"
        } else if error.is_connect() {
            "connect_failed"
        } else if error.is_body() || error.is_decode() {
            "answer_cut_off"
        } else {
            "connection_lost"
        };
        self.unavailable(code, Some(error.without_url().into()))
    }

    fn unavailable(&self, code: &'static str, source: Option<BoxError>) -> Error {
        Error::Unavailable {
            service: self.service,
            code: Code::new(code),
            retry_after: None,
            source,
        }
    }

    fn count(&self, outcome: &str) {
        self.metrics
            .upstream_requests
            .with_label_values(&[self.service, outcome])
            .inc();
    }

    /// Adds this try to the trace that people read.
    fn tell(
        &self,
        step: &str,
        request: &Request,
        status: Option<u16>,
        error: Option<&Error>,
        took: Duration,
    ) {
        if !tracing::enabled!(target: "hookyard::step", tracing::Level::DEBUG) {
            return;
        }
        let method = request.method.as_str();
        let what = bare(step, method);
        let mut detail = format!("{method} {} {what} ->", self.service);
        if let Some(status) = status {
            detail.push_str(&format!(" {status}"));
        }
        if let Some(error) = error {
            detail.push_str(&format!(" {}", error.code()));
        }
        let ms = took.as_secs_f64() * 1000.0;
        tracing::debug!(target: "hookyard::step", step = "upstream", detail, ms);
    }
}

/// Returns a step's name without the method it may begin with.
fn bare<'a>(step: &'a str, method: &str) -> &'a str {
    step.strip_prefix(method).unwrap_or(step).trim_start()
}

/// Makes the connection pool of one upstream. No other place makes an HTTP client for calls.
fn connections(policy: &Policy) -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(policy.connect_timeout)
        .pool_idle_timeout(POOL_IDLE)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        // Retrying is decided here alone, with the deadline in view.
        .retry(reqwest::retry::never())
        // HTTP/2 where TLS negotiates it.
        .http2_adaptive_window(true)
        .build()
}

/// Tells whether an error speaks against the upstream rather than against the request.
fn is_illness(error: &Error) -> bool {
    error.class() == Class::Transient || matches!(error, Error::Unreadable { .. })
}

fn outcome_of(error: &Error) -> &'static str {
    match error {
        Error::Credentials { .. } => "credentials",
        Error::Unreadable { .. } => "unreadable",
        error => error.class().as_str(),
    }
}
