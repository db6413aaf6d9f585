//! Reads a JSON Web Key Set and keeps only the keys that may verify a push token.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Google publishes two to four keys.
const MOST_KEYS: usize = 100;
const LONGEST_KID: usize = 256;

/// The range the RSA implementation verifies with.
const KEY_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Keys ready to verify, and until when.
#[derive(Default)]
pub(super) struct KeySet {
    keys: HashMap<String, Key>,
    /// Counts changes of the keys; what an older set verified is verified again.
    pub(super) generation: u64,
    /// From when on a new fetch is due, and until when the keys may be used without one.
    pub(super) lifetime: Option<Lifetime>,
}

#[derive(Clone, Copy)]
pub(super) struct Lifetime {
    pub(super) due: Instant,
    pub(super) usable_until: Instant,
}

struct Key {
    decoding: DecodingKey,
    modulus: Vec<u8>,
    exponent: Vec<u8>,
}

impl KeySet {
    /// Tells whether there are keys and they are not too old.
    pub(super) fn usable(&self, now: Instant) -> bool {
        self.lifetime.is_some_and(|life| now <= life.usable_until)
    }

    /// Tells whether a new fetch is due.
    pub(super) fn due(&self, now: Instant) -> bool {
        self.lifetime.is_none_or(|life| now >= life.due)
    }

    pub(super) fn contains(&self, kid: &str) -> bool {
        self.keys.contains_key(kid)
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Checks an RS256 signature. The algorithm is fixed here, never taken from the token.
    pub(super) fn verifies(&self, kid: &str, message: &str, signature: &str) -> bool {
        self.keys.get(kid).is_some_and(|key| {
            jsonwebtoken::crypto::verify(
                signature,
                message.as_bytes(),
                &key.decoding,
                Algorithm::RS256,
            )
            .unwrap_or(false)
        })
    }

    /// Takes over the generation of `old` when the keys are the same, else counts on.
    pub(super) fn succeed(mut self, old: &Self, lifetime: Lifetime) -> Self {
        let same = self.keys.len() == old.keys.len()
            && self.keys.iter().all(|(kid, key)| {
                old.keys.get(kid).is_some_and(|other| {
                    key.modulus == other.modulus && key.exponent == other.exponent
                })
            });
        self.generation = old.generation + u64::from(!same);
        self.lifetime = Some(lifetime);
        self
    }

    /// Reads a key set; members that are no RSA signing keys of at least 2048 bits are skipped.
    ///
    /// Returns `None` when it is no key set or has no usable key.
    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        let members = serde_json::from_slice::<Members<'_>>(json).ok()?.keys;
        let mut keys: HashMap<String, Option<Key>> = HashMap::new();
        for member in members.into_iter().take(MOST_KEYS) {
            let Some((kid, key)) = usable_key(member) else {
                continue;
            };
            match keys.entry(kid) {
                Entry::Vacant(entry) => {
                    entry.insert(Some(key));
                }
                // Two keys under one name: nobody can say which is meant, so neither is used.
                Entry::Occupied(mut entry) => {
                    entry.insert(None);
                }
            }
        }
        let keys: HashMap<_, _> = keys
            .into_iter()
            .filter_map(|(kid, key)| Some((kid, key?)))
            .collect();
        (!keys.is_empty()).then(|| Self {
            keys,
            ..Self::default()
        })
    }
}

#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Member {
    kty: String,
    kid: String,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    n: String,
    e: String,
}

fn usable_key(member: &RawValue) -> Option<(String, Key)> {
    let member: Member = serde_json::from_str(member.get()).ok()?;
    let fits = member.kty == "RSA"
        && member.purpose.is_none_or(|purpose| purpose == "sig")
        && member.alg.is_none_or(|alg| alg == "RS256")
        && !member.kid.is_empty()
        && member.kid.len() <= LONGEST_KID;
    let modulus = number(&member.n)?;
    let exponent = number(&member.e)?;
    // An exponent of 1 would accept every signature; the usual one is 65537.
    let odd = exponent.last().is_some_and(|last| last % 2 == 1);
    let sane_exponent = odd && exponent != [1] && exponent.len() <= 8;
    if !fits || !KEY_BITS.contains(&bits(&modulus)) || !sane_exponent {
        return None;
    }
    let key = Key {
        decoding: DecodingKey::from_rsa_raw_components(&modulus, &exponent),
        modulus,
        exponent,
    };
    Some((member.kid, key))
}

/// Decodes a big-endian number and takes leading zeros off.
fn number(text: &str) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
    let first = bytes.iter().position(|byte| *byte != 0)?;
    Some(bytes.get(first..)?.to_vec())
}

fn bits(number: &[u8]) -> usize {
    let zeros = number.first().map_or(0, |byte| byte.leading_zeros());
    (number.len() * 8).saturating_sub(zeros as usize)
}
