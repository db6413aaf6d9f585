//! A token issuer in place of Google's: a fresh RSA key, its public half over HTTP, signed tokens.

use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::faults::Faults;
use super::http::{Reply, Request};
use super::journal::{Did, Entry, Journal};
use super::lock;
use crate::clock::SharedClock;
use crate::error::BoxError;

/// How long Google's tokens are good for.
pub const HOUR: Duration = Duration::from_secs(3600);

/// Path of the public keys, as at Google.
pub const JWKS_PATH: &str = "/oauth2/v3/certs";

/// Signs tokens as Google does for push subscriptions, with a key of its own.
///
/// Cheap to clone; all clones share the keys.
#[derive(Clone)]
pub struct Issuer {
    keys: Arc<Mutex<Keys>>,
    faults: Faults,
    journal: Journal,
    clock: SharedClock,
}

struct Keys {
    current: Arc<Key>,
    /// Published beside the current one.
    retired: Vec<Arc<Key>>,
    max_age: Option<u64>,
    fetches: u64,
}

struct Key {
    id: String,
    pair: RsaKeyPair,
}

impl Key {
    fn generate() -> Result<Arc<Self>, BoxError> {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048)?;
        let id = format!("{:016x}", rand::random::<u64>());
        Ok(Arc::new(Self { id, pair }))
    }

    /// Returns the public half as a JSON Web Key (RFC 7517, RFC 7518 §6.3.1).
    fn jwk(&self) -> Value {
        let (modulus, exponent) = public_parts(self.pair.public_key().as_ref());
        json!({
            "kty": "RSA", "alg": "RS256", "use": "sig", "kid": self.id,
            "n": URL_SAFE_NO_PAD.encode(modulus), "e": URL_SAFE_NO_PAD.encode(exponent),
        })
    }
}

/// Takes an `RSAPublicKey` (RFC 8017 A.1.1) of 2048 bits apart. All its lengths are fixed: a
/// sequence of 266 bytes with an integer of 257, the first of them zero, and one of 3.
fn public_parts(der: &[u8]) -> (&[u8], &[u8]) {
    match der {
        [0x30, 0x82, 1, 10, 2, 0x82, 1, 1, 0, rest @ ..] if rest.len() == 261 => {
            (&rest[..256], &rest[258..])
        }
        _ => (&[], &[]),
    }
}

impl Issuer {
    /// Makes an issuer with a fresh key.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(journal: Journal, clock: SharedClock) -> Result<Self, BoxError> {
        let keys = Keys {
            current: Key::generate()?,
            retired: Vec::new(),
            max_age: Some(20_000),
            fetches: 0,
        };
        Ok(Self {
            keys: Arc::new(Mutex::new(keys)),
            faults: Faults::default(),
            journal,
            clock,
        })
    }

    /// Returns the id of the key that signs at present.
    pub fn kid(&self) -> String {
        lock(&self.keys).current.id.clone()
    }

    /// Returns the claims of a good token, to be changed at will.
    pub fn claims(&self, audience: &str, email: &str, ttl: Duration) -> Value {
        let now = self
            .clock
            .now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        json!({
            "iss": "https://accounts.google.com", "aud": audience,
            "azp": "113774264463038321964", "sub": "113774264463038321964",
            "email": email, "email_verified": true,
            "iat": now.as_secs(), "exp": (now + ttl).as_secs(),
        })
    }

    /// Returns a token that a service with this audience and service account accepts.
    pub fn token(&self, audience: &str, email: &str, ttl: Duration) -> String {
        self.sign(&self.claims(audience, email, ttl))
    }

    /// Signs any claims with the present key.
    pub fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": "RS256", "kid": self.kid(), "typ": "JWT"});
        self.sign_with_header(&header, claims)
    }

    /// Signs any claims under any header, always with RS256 and the present key.
    pub fn sign_with_header(&self, header: &Value, claims: &Value) -> String {
        let key = Arc::clone(&lock(&self.keys).current);
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let mut signature = vec![0; key.pair.public_modulus_len()];
        let random = SystemRandom::new();
        // Signing fails on a broken key only; the token is then as bad as it should be.
        key.pair
            .sign(
                &RSA_PKCS1_SHA256,
                &random,
                signed.as_bytes(),
                &mut signature,
            )
            .ok();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Signs with a new key from now on and publishes both, as Google rotates.
    ///
    /// # Errors
    /// As [`Issuer::new`].
    pub fn rotate(&self) -> Result<(), BoxError> {
        let fresh = Key::generate()?;
        let mut keys = lock(&self.keys);
        let old = std::mem::replace(&mut keys.current, fresh);
        keys.retired.push(old);
        Ok(())
    }

    /// Publishes the present key only: tokens of earlier keys are worthless from now on.
    pub fn forget_retired_keys(&self) {
        lock(&self.keys).retired.clear();
    }

    /// Returns the private key as PKCS#8 in DER, for tests that sign in other ways.
    pub fn private_key_der(&self) -> Vec<u8> {
        let der = lock(&self.keys).current.pair.as_der();
        der.map(|der| der.as_ref().to_vec()).unwrap_or_default()
    }

    /// Returns the published set of keys.
    pub fn jwks(&self) -> Value {
        let keys = lock(&self.keys);
        let all = std::iter::once(&keys.current).chain(&keys.retired);
        json!({"keys": all.map(|key| key.jwk()).collect::<Vec<_>>()})
    }

    /// Sets `Cache-Control: max-age` of the key set, `None` for no such header.
    pub fn set_max_age(&self, seconds: Option<u64>) {
        lock(&self.keys).max_age = seconds;
    }

    /// Returns how often the keys were asked for.
    pub fn key_fetches(&self) -> u64 {
        lock(&self.keys).fetches
    }

    /// Returns the faults of the key endpoint.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Answers a request for the keys.
    pub(super) async fn answer_keys(&self, request: &Request) -> Reply {
        let max_age = {
            let mut keys = lock(&self.keys);
            keys.fetches += 1;
            keys.max_age
        };
        let fault = self.faults.draw(request.path.as_bytes());
        let lost = fault
            .as_ref()
            .is_some_and(|fault| fault.loses_the_request());
        self.journal.write(Entry {
            at: self.clock.now(),
            upstream: "jwks",
            request: format!("GET {JWKS_PATH}"),
            subject: String::new(),
            key: None,
            hash: 0,
            did: if lost { Did::Lost } else { Did::Read },
            status: 200,
            fault: fault.as_ref().map(super::faults::Fault::name),
        });
        if let Some(fault) = &fault
            && let Some(reply) = fault.before(&self.clock).await
        {
            return reply;
        }
        let mut reply = Reply::json(200, &self.jwks());
        if let Some(seconds) = max_age {
            let policy = format!("public, max-age={seconds}, must-revalidate, no-transform");
            reply = reply.with("cache-control", policy);
        }
        match fault {
            Some(fault) => fault.after(reply, &self.clock).await,
            None => reply,
        }
    }
}
