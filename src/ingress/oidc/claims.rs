//! What a token says, and whether that is acceptable; no cryptography in this file.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{self, Deserializer, IgnoredAny, Visitor};
use serde::{Deserialize, de::DeserializeOwned};

use super::{Flaw, TokenError};
use crate::config::PushAuthConfig;

/// Google signs with `https://accounts.google.com`; its own libraries accept both spellings.
const GOOGLE: [&str; 2] = ["https://accounts.google.com", "accounts.google.com"];

/// What Cloud Run puts in place of the signature once its invoker check has verified it
/// (<https://cloud.google.com/run/docs/troubleshooting#signature-removed>).
pub(super) const SIGNATURE_REMOVED: &str = "SIGNATURE_REMOVED_BY_GOOGLE";

/// How far our clock and the issuer's may differ, in seconds.
pub(super) const LEEWAY: i64 = 60;

/// Google's tokens live for an hour; its own libraries refuse what lives longer than a day.
const LONGEST_LIFE: i64 = 24 * 60 * 60;

const LONGEST_KID: usize = 256;

/// Google's has about 100 characters; a long one is somebody's experiment.
const LONGEST_HEADER: usize = 2048;

/// A token in its three parts, still encoded.
pub(super) struct Parts<'a> {
    /// What is signed: header, dot, payload.
    pub(super) message: &'a str,
    header: &'a str,
    payload: &'a str,
    pub(super) signature: &'a str,
}

impl<'a> Parts<'a> {
    pub(super) fn of(token: &'a str) -> Result<Self, TokenError> {
        let (message, signature) = token.rsplit_once('.').ok_or(Flaw::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(Flaw::Malformed)?;
        let empty = header.is_empty() || payload.is_empty() || signature.is_empty();
        if empty || payload.contains('.') {
            return Err(Flaw::Malformed.into());
        }
        Ok(Self {
            message,
            header,
            payload,
            signature,
        })
    }

    /// Returns the key id, once everything else in the header is known to be harmless.
    pub(super) fn key_id(&self) -> Result<String, TokenError> {
        if self.header.len() > LONGEST_HEADER {
            return Err(Flaw::Header.into());
        }
        let header: Header = decode(self.header).ok_or(Flaw::Header)?;
        // A header that brings its own key, or that changes what is signed, is never a Google
        // push token (RFC 8725 3.10; RFC 7515 4.1.11; RFC 7797).
        let own_rules = header.crit || header.b64;
        let own_key = header.jwk || header.jku || header.x5u || header.x5c;
        if header.alg != "RS256" || own_rules || own_key {
            return Err(Flaw::Header.into());
        }
        match header.kid {
            Some(kid) if !kid.is_empty() && kid.len() <= LONGEST_KID => Ok(kid),
            _ => Err(Flaw::Header.into()),
        }
    }

    pub(super) fn claims(&self) -> Result<Claims, TokenError> {
        decode(self.payload).ok_or_else(|| Flaw::Claims.into())
    }
}

fn decode<T: DeserializeOwned>(part: &str) -> Option<T> {
    let json = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&json).ok()
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: bool,
    #[serde(default, deserialize_with = "present")]
    b64: bool,
    #[serde(default, deserialize_with = "present")]
    jwk: bool,
    #[serde(default, deserialize_with = "present")]
    jku: bool,
    #[serde(default, deserialize_with = "present")]
    x5u: bool,
    #[serde(default, deserialize_with = "present")]
    x5c: bool,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// The claims of a push token that matter here. A missing, repeated or oddly typed one makes the
/// whole token unreadable; `aud` is a single string with Google, so a list is refused.
#[derive(Deserialize)]
pub(super) struct Claims {
    iss: String,
    aud: String,
    email: String,
    email_verified: bool,
    exp: Seconds,
    iat: Option<Seconds>,
    nbf: Option<Seconds>,
}

impl Claims {
    /// Returns the last second at which the token is still accepted.
    pub(super) fn accepted_until(&self) -> i64 {
        self.exp.0.saturating_add(LEEWAY)
    }
}

/// Seconds since 1970; RFC 7519 allows fractions.
#[derive(Clone, Copy)]
struct Seconds(i64);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecondsVisitor).map(Self)
    }
}

struct SecondsVisitor;

impl Visitor<'_> for SecondsVisitor {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("seconds since 1970")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<i64, E> {
        i64::try_from(value).map_err(|_| E::custom("out of range"))
    }

    #[expect(clippy::cast_possible_truncation, reason = "the range was checked")]
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<i64, E> {
        // 2^53: above it a float no longer names a second.
        if (0.0..9_007_199_254_740_992.0).contains(&value) {
            Ok(value as i64)
        } else {
            Err(E::custom("out of range"))
        }
    }
}

/// What the operator accepts.
pub(super) struct Expected {
    issuers: Vec<String>,
    audiences: Vec<String>,
    accounts: Vec<String>,
}

impl Expected {
    pub(super) fn new(config: &PushAuthConfig) -> Self {
        let issuers = if GOOGLE.contains(&config.issuer.as_str()) {
            GOOGLE.map(str::to_owned).to_vec()
        } else {
            vec![config.issuer.clone()]
        };
        Self {
            issuers,
            audiences: config.audiences.clone(),
            accounts: config.service_accounts.clone(),
        }
    }

    /// Checks everything but whose token it is.
    pub(super) fn check(&self, claims: &Claims, now: i64) -> Result<(), TokenError> {
        let latest = now.saturating_add(LEEWAY);
        let began = claims.iat.map_or(now, |iat| iat.0);
        let life = claims.exp.0.saturating_sub(began);
        let later = |at: Option<Seconds>| at.is_some_and(|at| at.0 > latest);
        let flaw = if !self.issuers.contains(&claims.iss) {
            Flaw::Issuer
        } else if !self.audiences.contains(&claims.aud) {
            Flaw::Audience
        } else if claims.accepted_until() < now {
            Flaw::Expired
        } else if later(claims.nbf) || later(claims.iat) {
            Flaw::NotYetValid
        } else if life > LONGEST_LIFE {
            Flaw::LivesTooLong
        } else if !claims.email_verified {
            Flaw::EmailNotVerified
        } else {
            return Ok(());
        };
        Err(flaw.into())
    }

    /// Returns which accepted service account the token belongs to. Told to a caller only after
    /// the signature was verified: a forger learns nothing about accounts.
    pub(super) fn account(&self, claims: &Claims) -> Result<usize, TokenError> {
        let is_it = |account: &String| *account == claims.email;
        self.accounts
            .iter()
            .position(is_it)
            .ok_or(TokenError::WrongIdentity)
    }
}

/// Returns a wall-clock time in whole seconds since 1970.
pub(super) fn seconds(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
