//! The doors through which events enter; each ends in the pipeline and settles its own transport.

pub mod oidc;
