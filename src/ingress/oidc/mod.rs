//! Verifies the OIDC token of a push request: who sent it, for whom, and signed by whom.
//!
//! Google's description of the token:
//! <https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions>.

mod cache;
mod claims;
mod error;
mod key_set;
mod keys;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use error::{Flaw, TokenError, bearer};
pub use keys::FetchError;

use cache::{Fingerprint, VerifiedTokens};
use claims::{Expected, Parts, SIGNATURE_REMOVED, seconds};
use keys::{FETCH_TIMEOUT, Keys, Why};

use crate::clock::SharedClock;
use crate::config::{PushAuthConfig, PushAuthMode};
use crate::telemetry::Metrics;

/// Whose token it was.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity(Arc<str>);

impl Identity {
    /// Makes an identity, for verifiers of tests and other issuers.
    pub fn new(service_account: impl Into<Arc<str>>) -> Self {
        Self(service_account.into())
    }

    /// Returns the e-mail address of the service account.
    pub fn service_account(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Identity {
    /// Hides the address: identities end up in log lines by way of `{:?}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}

/// Decides whether the sender of a push request may send it.
pub trait TokenVerifier: Send + Sync + 'static {
    /// Judges a token without waiting.
    ///
    /// Returns `None` when only fetching keys can tell; then [`TokenVerifier::verify`] does so.
    fn verify_now(&self, token: &str) -> Option<Result<Identity, TokenError>>;

    /// Judges a token, and waits for keys if that is what it takes.
    ///
    /// # Errors
    /// [`TokenError`] says whether the token, its owner, or our lack of keys is the reason.
    fn verify<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, TokenError>>;

    /// Tells whether tokens can be judged at present.
    fn ready(&self) -> bool;
}

/// Verifies tokens of one issuer, as the configuration says.
pub struct OidcVerifier {
    mode: PushAuthMode,
    expected: Expected,
    accounts: Vec<Identity>,
    keys: Arc<Keys>,
    verified: VerifiedTokens,
    clock: SharedClock,
}

/// What can be said about a token with the keys at hand.
enum Verdict {
    Final(Result<Identity, TokenError>),
    Ask(Why),
}

impl OidcVerifier {
    /// Makes a verifier; it has no keys until [`OidcVerifier::start`], or until the first token.
    pub fn new(config: &PushAuthConfig, clock: SharedClock, metrics: Arc<Metrics>) -> Self {
        Self::with_fetch_timeout(config, clock, metrics, FETCH_TIMEOUT)
    }

    /// As [`OidcVerifier::new`], with another limit than 5 seconds for fetching the keys.
    pub fn with_fetch_timeout(
        config: &PushAuthConfig,
        clock: SharedClock,
        metrics: Arc<Metrics>,
        timeout: Duration,
    ) -> Self {
        let url = config.jwks_url.clone();
        let accounts = config.service_accounts.iter().map(String::as_str);
        Self {
            mode: config.mode,
            expected: Expected::new(config),
            accounts: accounts.map(Identity::new).collect(),
            keys: Keys::new(url, timeout, Arc::clone(&clock), metrics),
            verified: VerifiedTokens::new(),
            clock,
        }
    }

    /// Fetches the keys in the background, now and whenever it is time, until `stop`.
    pub fn start(&self, tasks: &TaskTracker, stop: CancellationToken) {
        match self.mode {
            PushAuthMode::Verify => {
                tasks.spawn(Arc::clone(&self.keys).keep_fresh(stop));
            }
            PushAuthMode::Platform => tracing::warn!(
                "token signatures are not checked here: PUSH_AUTH_MODE is platform, so only \
                 Cloud Run's invoker check keeps forged requests out"
            ),
        }
    }

    /// Does what the background task would do at this moment, and waits for it.
    pub async fn refresh_due(&self) {
        self.keys.ask(Why::Due).await;
    }

    /// Fetches the keys once without using them, and returns how many are usable.
    ///
    /// # Errors
    /// [`FetchError`] says in a word why there are none.
    pub async fn probe_keys(&self) -> Result<usize, FetchError> {
        let (set, _) = self.keys.fetch().await?;
        Ok(set.len())
    }

    /// Returns how many verified tokens are remembered.
    pub fn remembered(&self) -> u64 {
        self.verified.len()
    }

    fn judge(&self, token: &str) -> Verdict {
        let now = seconds(self.clock.now());
        match self.mode {
            PushAuthMode::Verify => self.judge_signed(token, now),
            PushAuthMode::Platform => Verdict::Final(self.judge_stripped(token, now)),
        }
    }

    /// Everything cheap comes before the RSA operation. Whether the identity is one of ours is
    /// told after it: only the issuer's own tokens deserve that answer.
    fn judge_signed(&self, token: &str, now: i64) -> Verdict {
        let fingerprint = Fingerprint::of(token);
        let set = self.keys.current();
        let monotonic = self.clock.monotonic();
        let usable = set.usable(monotonic);
        if usable && set.due(monotonic) {
            self.keys.refresh_if_due();
        }
        if usable && let Some(account) = self.verified.account(&fingerprint, set.generation, now) {
            return Verdict::Final(self.accept(account, "known token"));
        }
        let checked = Parts::of(token).and_then(|parts| {
            if parts.signature == SIGNATURE_REMOVED {
                return Err(Flaw::SignatureRemoved.into());
            }
            let kid = parts.key_id()?;
            let claims = parts.claims()?;
            self.expected.check(&claims, now)?;
            Ok((parts, kid, claims))
        });
        let (parts, kid, claims) = match checked {
            Ok(checked) => checked,
            Err(error) => return Verdict::Final(Err(error)),
        };
        if !usable {
            return Verdict::Ask(Why::Due);
        }
        if !set.contains(&kid) {
            return Verdict::Ask(Why::UnknownKey);
        }
        if !set.verifies(&kid, parts.message, parts.signature) {
            return Verdict::Final(Err(Flaw::Signature.into()));
        }
        Verdict::Final(self.expected.account(&claims).and_then(|account| {
            let until = claims.accepted_until();
            self.verified
                .remember(fingerprint, account, until, set.generation);
            self.accept(account, "signature and claims")
        }))
    }

    fn judge_stripped(&self, token: &str, now: i64) -> Result<Identity, TokenError> {
        let parts = Parts::of(token)?;
        if parts.signature != SIGNATURE_REMOVED {
            return Err(Flaw::SignatureNotRemoved.into());
        }
        parts.key_id()?;
        let claims = parts.claims()?;
        self.expected.check(&claims, now)?;
        let account = self.expected.account(&claims)?;
        self.accept(account, "claims; signature checked by the platform")
    }

    fn accept(&self, account: usize, detail: &'static str) -> Result<Identity, TokenError> {
        tracing::debug!(target: "hookyard::step", step = "token verified", detail);
        let identity = self.accounts.get(account).cloned();
        identity.ok_or(TokenError::WrongIdentity)
    }
}

fn unanswered(why: Why) -> TokenError {
    match why {
        Why::Due => TokenError::KeysUnavailable,
        Why::UnknownKey => Flaw::UnknownKey.into(),
    }
}

impl TokenVerifier for OidcVerifier {
    fn verify_now(&self, token: &str) -> Option<Result<Identity, TokenError>> {
        match self.judge(token) {
            Verdict::Final(result) => Some(result),
            Verdict::Ask(why) if self.keys.may_ask(why) => None,
            Verdict::Ask(why) => Some(Err(unanswered(why))),
        }
    }

    fn verify<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, TokenError>> {
        async move {
            let why = match self.judge(token) {
                Verdict::Final(result) => return result,
                Verdict::Ask(why) => why,
            };
            if !self.keys.ask(why).await {
                return Err(unanswered(why));
            }
            match self.judge(token) {
                Verdict::Final(result) => result,
                Verdict::Ask(why) => Err(unanswered(why)),
            }
        }
        .boxed()
    }

    fn ready(&self) -> bool {
        match self.mode {
            PushAuthMode::Verify => self.keys.current().usable(self.clock.monotonic()),
            PushAuthMode::Platform => true,
        }
    }
}
