//! One test binary: it is linked once.

mod oidc_issuer;
mod oidc_keys;
mod oidc_tokens;
