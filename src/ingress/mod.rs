//! The doors through which events enter; each ends in the pipeline and settles its own transport.

pub mod oidc;

mod body;
mod gate;
mod poll;
mod push;
mod refusals;
mod subscribe;
mod webhook;

pub use body::{BodyError, read_body, refuse_encoding};
pub use gate::{Gate, Permit};
pub use oidc::{Identity, OidcVerifier, TokenError, TokenVerifier, bearer};
pub use poll::{Asked, PipelineRows, RunRow, Turn, Worker, WorkerSettings};
pub use push::{PushDoor, receive};
pub use refusals::Refusals;
pub use subscribe::DeadLetterDrain;
pub use webhook::{SECRET_HEADER, WebhookDoor, receive_webhook};
