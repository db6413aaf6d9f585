//! Why a push request was not believed, and how that is answered.

use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};

/// Google's push tokens have about 900 bytes.
const LONGEST_TOKEN: usize = 8 * 1024;

/// What is wrong with a token that is no good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// There is no `Authorization` header.
    Missing,
    /// The header is no single bearer token, or the token has no three parts.
    Malformed,
    /// Unreadable header, another algorithm than RS256, no key id, or a key of its own.
    Header,
    /// Unreadable claims: one is missing, repeated or of another type.
    Claims,
    /// Another issuer.
    Issuer,
    /// Meant for somebody else.
    Audience,
    /// `exp` has passed.
    Expired,
    /// `iat` or `nbf` is still to come.
    NotYetValid,
    /// Valid for more than a day.
    LivesTooLong,
    /// The issuer has not verified the address.
    EmailNotVerified,
    /// Signed with a key the issuer does not publish.
    UnknownKey,
    /// The signature does not fit.
    Signature,
    /// Cloud Run took the signature away, but `PUSH_AUTH_MODE` is not `platform`.
    SignatureRemoved,
    /// `PUSH_AUTH_MODE` is `platform`, but the signature is still there.
    SignatureNotRemoved,
}

/// Why a push request was not believed. No variant holds anything of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is no token, or it is no good.
    #[error("no valid token")]
    Invalid(Flaw),
    /// The token is good, but its owner may not push here.
    #[error("token of another identity")]
    WrongIdentity,
    /// There are no keys to verify with. Not the sender's fault.
    #[error("no keys to verify the token with")]
    KeysUnavailable,
}

impl From<Flaw> for TokenError {
    fn from(flaw: Flaw) -> Self {
        Self::Invalid(flaw)
    }
}

impl TokenError {
    /// Returns the word for `hookyard_push_rejected_total{reason}`; one of a fixed list.
    pub fn reason(self) -> &'static str {
        match self {
            Self::WrongIdentity => "wrong_identity",
            Self::KeysUnavailable => "keys_unavailable",
            Self::Invalid(flaw) => match flaw {
                Flaw::Missing => "token_missing",
                Flaw::Malformed => "token_malformed",
                Flaw::Header => "token_header",
                Flaw::Claims => "token_claims",
                Flaw::Issuer => "wrong_issuer",
                Flaw::Audience => "wrong_audience",
                Flaw::Expired => "token_expired",
                Flaw::NotYetValid => "token_not_yet_valid",
                Flaw::LivesTooLong => "token_lives_too_long",
                Flaw::EmailNotVerified => "email_not_verified",
                Flaw::UnknownKey => "unknown_key",
                Flaw::Signature => "bad_signature",
                Flaw::SignatureRemoved => "signature_removed",
                Flaw::SignatureNotRemoved => "signature_not_removed",
            },
        }
    }

    /// Returns the status the sender gets: 401, 403 or 503.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Invalid(_) => StatusCode::UNAUTHORIZED,
            Self::WrongIdentity => StatusCode::FORBIDDEN,
            Self::KeysUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for TokenError {
    /// Answers without a body: a sender who has to guess gets nothing to compare.
    fn into_response(self) -> Response {
        let mut response = Response::default();
        *response.status_mut() = self.status();
        match self.status() {
            StatusCode::UNAUTHORIZED => response
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            StatusCode::SERVICE_UNAVAILABLE => response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static("5")),
            _ => None,
        };
        response
    }
}

/// Takes the bearer token out of a request's headers.
///
/// # Errors
/// [`Flaw::Missing`] without an `Authorization` header; [`Flaw::Malformed`] with more than one,
/// another scheme, or anything but one word of visible ASCII up to 8 KiB.
pub fn bearer(headers: &HeaderMap) -> Result<&str, TokenError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Flaw::Missing)?;
    if values.next().is_some() {
        return Err(Flaw::Malformed.into());
    }
    // Every byte is looked at, whatever comes before it: many at a time, that is.
    let visible = |bytes: &[u8]| {
        let odd = |b: &u8| u8::from(!(b' '..=b'~').contains(b));
        bytes.iter().fold(0, |found, b| found | odd(b)) == 0
    };
    let text = Some(value.as_bytes()).filter(|bytes| visible(bytes));
    let text = text.and_then(|bytes| std::str::from_utf8(bytes).ok());
    let text = text.ok_or(Flaw::Malformed)?;
    let (scheme, token) = text.split_once(' ').ok_or(Flaw::Malformed)?;
    let token = token.trim_start_matches(' ');
    let one_word = !token.is_empty() && !token.as_bytes().contains(&b' ');
    if scheme.eq_ignore_ascii_case("bearer") && one_word && token.len() <= LONGEST_TOKEN {
        Ok(token)
    } else {
        Err(Flaw::Malformed.into())
    }
}
