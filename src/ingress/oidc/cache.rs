//! Remembers tokens that were verified, because Pub/Sub sends the same one for up to an hour.

use std::hash::{Hash, Hasher};

use aws_lc_rs::digest::{SHA256, digest};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

const CAPACITY: u64 = 10_000;

/// SHA-256 of a whole token, signature included.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(super) fn of(token: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Self(bytes)
    }
}

impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Any eight bytes of a SHA-256 are as good as all of it for finding the bucket.
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

#[derive(Clone, Copy)]
struct Verified {
    account: usize,
    accepted_until: i64,
    generation: u64,
}

/// The verified tokens. Only good ones come in, so forged ones cannot push them out.
pub(super) struct VerifiedTokens(Cache<Fingerprint, Verified>);

impl VerifiedTokens {
    pub(super) fn new() -> Self {
        // The default policy prefers what was asked for often, which after some hours would be
        // expired tokens: the least recently used one has to go.
        let cache = Cache::builder()
            .max_capacity(CAPACITY)
            .eviction_policy(EvictionPolicy::lru());
        Self(cache.build())
    }

    /// Returns the account of a token that the key set of this `generation` verified earlier.
    pub(super) fn account(&self, of: &Fingerprint, generation: u64, now: i64) -> Option<usize> {
        let found = self.0.get(of)?;
        if found.generation == generation && now <= found.accepted_until {
            return Some(found.account);
        }
        self.0.invalidate(of);
        None
    }

    pub(super) fn remember(
        &self,
        token: Fingerprint,
        account: usize,
        accepted_until: i64,
        generation: u64,
    ) {
        let verified = Verified {
            account,
            accepted_until,
            generation,
        };
        self.0.insert(token, verified);
    }

    pub(super) fn len(&self) -> u64 {
        self.0.run_pending_tasks();
        self.0.entry_count()
    }
}
