//! Why an event could not be processed, and whether trying again can help.

#![deny(clippy::wildcard_enum_match_arm)]

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// An error of a library below, kept as the cause.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The result of everything a handler does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whether the same work may succeed when it is done again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The other side may answer next time; the event is handed back and delivered again.
    Transient,
    /// The answer will not change; the event becomes a dead letter and is acknowledged.
    Permanent,
}

impl Class {
    /// Returns the word used in logs, metrics and dead-letter attributes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
        }
    }
}

/// A short machine-readable reason such as `resource_not_found` or `timeout`.
///
/// Codes are the only words of an upstream's answer that leave this process (in logs, metrics
/// and dead letters), so anything that does not look like a code becomes `other`: an upstream
/// that puts a mail address into its error code must not be able to leak it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Code(Cow<'static, str>);

impl Code {
    /// Makes a code that this program chose itself.
    pub const fn new(code: &'static str) -> Self {
        Self(Cow::Borrowed(code))
    }

    /// Takes a code from an upstream's answer, if it is made of lower-case words.
    pub fn from_upstream(text: &str) -> Self {
        let plain = |b: u8| b.is_ascii_lowercase() || matches!(b, b'_' | b'-' | b'.');
        if !text.is_empty() && text.len() <= 64 && text.bytes().all(plain) {
            Self(Cow::Owned(text.to_owned()))
        } else {
            Self::new("other")
        }
    }

    /// Returns the code as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why an event could not be processed.
///
/// No variant's text holds a token, a secret or a value out of a row: it goes into logs and
/// dead letters as it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other side may well answer next time: timeout, 429, 5xx, lost connection.
    #[error("{service} is unavailable ({code})")]
    Unavailable {
        /// Which upstream.
        service: &'static str,
        /// What went wrong.
        code: Code,
        /// How long the other side asked to be left alone.
        retry_after: Option<Duration>,
        /// The transport's own error, without the URL.
        #[source]
        source: Option<BoxError>,
    },
    /// The breaker of this upstream is open, so it was not called.
    #[error("{service} has failed repeatedly and is given a rest")]
    BreakerOpen {
        /// Which upstream.
        service: &'static str,
        /// When the next probe is let through.
        retry_after: Duration,
    },
    /// The other side refused our own credentials. Not the event's fault: no dead letter.
    #[error("{service} refused our credentials ({code}); check its key and role")]
    Credentials {
        /// Which upstream.
        service: &'static str,
        /// The upstream's word for it.
        code: Code,
    },
    /// The other side answered, and the answer will not change: 4xx, GraphQL `errors`.
    #[error("{service} rejected the request ({code})")]
    Rejected {
        /// Which upstream.
        service: &'static str,
        /// The upstream's word for it.
        code: Code,
    },
    /// What should be changed does not exist: 404, `update_x_by_pk: null`, `affected_rows: 0`.
    #[error("{service} has no such {what}")]
    NotFound {
        /// Which upstream.
        service: &'static str,
        /// The kind of thing that was looked for.
        what: &'static str,
    },
    /// The other side answered 200 with something that is not its API, twice.
    #[error("{service} gave an answer that cannot be read ({code})")]
    Unreadable {
        /// Which upstream.
        service: &'static str,
        /// What is wrong with the answer.
        code: Code,
    },
    /// The payload does not have the shape the handler declared.
    #[error("payload of `{event_type}` does not fit at `{path}`")]
    Malformed {
        /// Which event type.
        event_type: String,
        /// Where in the payload; names of fields, never a value.
        path: String,
    },
    /// The time budget of the delivery was used up.
    #[error("out of time during {during}")]
    OutOfTime {
        /// What was being done.
        during: &'static str,
    },
    /// A message could not be handed to the broker, which may take it later.
    #[error("topic `{topic}` did not confirm the message ({code})")]
    Unpublished {
        /// The short topic name.
        topic: String,
        /// What the broker said.
        code: Code,
    },
    /// The broker will never take this message: too large, malformed.
    #[error("topic `{topic}` refused the message ({code})")]
    Unpublishable {
        /// The short topic name.
        topic: String,
        /// What the broker said.
        code: Code,
    },
    /// The handler panicked.
    #[error("handler `{handler}` panicked")]
    Panicked {
        /// Which handler.
        handler: &'static str,
    },
    /// A team's own handler failed in a way that trying again may mend.
    #[error("not possible now ({code})")]
    Later {
        /// The handler's word for it.
        code: Code,
        /// When to try again.
        retry_after: Option<Duration>,
    },
    /// A team's own handler found that the event can never be processed.
    #[error("not possible ({code})")]
    Never {
        /// The handler's word for it.
        code: Code,
    },
}

impl Error {
    /// Says that trying again later may help; `code` is a constant word such as `crm_busy`.
    pub fn transient(code: &'static str) -> Self {
        Self::Later {
            code: Code::new(code),
            retry_after: None,
        }
    }

    /// Says that trying again cannot help; the event becomes a dead letter with this code.
    pub fn permanent(code: &'static str) -> Self {
        Self::Never {
            code: Code::new(code),
        }
    }

    /// Tells whether trying again can help.
    pub fn class(&self) -> Class {
        match self {
            Self::Unavailable { .. }
            | Self::BreakerOpen { .. }
            | Self::Credentials { .. }
            | Self::OutOfTime { .. }
            | Self::Unpublished { .. }
            | Self::Panicked { .. }
            | Self::Later { .. } => Class::Transient,
            Self::Rejected { .. }
            | Self::NotFound { .. }
            | Self::Unreadable { .. }
            | Self::Malformed { .. }
            | Self::Unpublishable { .. }
            | Self::Never { .. } => Class::Permanent,
        }
    }

    /// Returns the machine-readable reason.
    pub fn code(&self) -> Code {
        match self {
            Self::Unavailable { code, .. }
            | Self::Credentials { code, .. }
            | Self::Rejected { code, .. }
            | Self::Unreadable { code, .. }
            | Self::Unpublished { code, .. }
            | Self::Unpublishable { code, .. }
            | Self::Later { code, .. }
            | Self::Never { code } => code.clone(),
            Self::BreakerOpen { .. } => Code::new("breaker_open"),
            Self::NotFound { .. } => Code::new("not_found"),
            Self::Malformed { .. } => Code::new("malformed_payload"),
            Self::OutOfTime { .. } => Code::new("out_of_time"),
            Self::Panicked { .. } => Code::new("panic"),
        }
    }

    /// Returns how long to wait before the next try, when somebody said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } | Self::Later { retry_after, .. } => *retry_after,
            Self::BreakerOpen { retry_after, .. } => Some(*retry_after),
            Self::Credentials { .. }
            | Self::Rejected { .. }
            | Self::NotFound { .. }
            | Self::Unreadable { .. }
            | Self::Malformed { .. }
            | Self::OutOfTime { .. }
            | Self::Unpublished { .. }
            | Self::Unpublishable { .. }
            | Self::Panicked { .. }
            | Self::Never { .. } => None,
        }
    }

    /// Tells whether this says nothing about the event, which was not really tried: an upstream
    /// rests or refuses our credentials, or our own database is away.
    pub fn is_no_try(&self) -> bool {
        let database = matches!(self, Self::Unavailable { service, .. } if *service == "database");
        database || matches!(self, Self::BreakerOpen { .. } | Self::Credentials { .. })
    }

    /// Tells whether somebody has to be woken: our own configuration is at fault.
    pub fn needs_operator(&self) -> bool {
        matches!(self, Self::Credentials { .. })
    }
}
