//! One test binary: it is linked once.

mod edge_http;
mod edge_requests;
mod edge_server;
mod oidc_issuer;
mod oidc_keys;
mod oidc_tokens;
