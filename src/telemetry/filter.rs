//! What is logged at which level.

use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::layer::{Context, Filter};

/// Libraries that may log headers, addresses or bodies below `warn`. `LOG_LEVEL=debug` is about
/// this service; who wants one of these names it: `LOG_LEVEL=info,h2=debug`.
const TALKATIVE: &[&str] = &[
    "axum",
    "gaxi",
    "google_cloud",
    "graphql_client",
    "h2",
    "hyper",
    "hyper_util",
    "jsonwebtoken",
    "mio",
    "moka",
    "reqwest",
    "rustls",
    "tokio",
    "tonic",
    "tower",
    "want",
];

/// The filter of the log lines.
#[derive(Debug, Clone)]
pub(super) struct LineFilter(Targets);

impl LineFilter {
    /// Reads a level or a list of `target=level`.
    pub(super) fn parse(level: &str) -> Result<Self, ParseError> {
        let given: Targets = level.parse()?;
        let named: Vec<String> = given.iter().map(|(target, _)| target.to_owned()).collect();
        let cap = given
            .default_level()
            .map_or(LevelFilter::WARN, |default| default.min(LevelFilter::WARN));
        let capped = TALKATIVE
            .iter()
            .filter(|library| !named.iter().any(|name| name.starts_with(**library)));
        Ok(Self(
            given.with_targets(capped.map(|library| (*library, cap))),
        ))
    }

    /// Spans of this service carry the ids that every line needs, at whatever level it is.
    fn shows(&self, meta: &Metadata<'_>) -> bool {
        let carrier = meta.is_span()
            && meta.target().starts_with("hookyard")
            && *meta.level() <= tracing::Level::INFO;
        carrier || self.0.would_enable(meta.target(), meta.level())
    }
}

impl<S: Subscriber> Filter<S> for LineFilter {
    fn enabled(&self, meta: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.shows(meta)
    }

    fn callsite_enabled(&self, meta: &'static Metadata<'static>) -> tracing::subscriber::Interest {
        if self.shows(meta) {
            tracing::subscriber::Interest::always()
        } else {
            tracing::subscriber::Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let highest = self.0.iter().map(|(_, level)| level).max();
        highest
            .max(self.0.default_level())
            .max(Some(LevelFilter::INFO))
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn libraries_stay_at_warn_unless_they_are_named() {
        let debug = LineFilter::parse("debug").unwrap().0;
        assert!(debug.would_enable("hookyard::pipeline", &Level::DEBUG));
        assert!(debug.would_enable("own_handlers", &Level::DEBUG));
        assert!(debug.would_enable("h2::codec", &Level::WARN));
        assert!(!debug.would_enable("h2::codec", &Level::INFO));
        assert!(!debug.would_enable("google_cloud_pubsub::publisher", &Level::DEBUG));

        let named = LineFilter::parse("info,h2::codec=trace").unwrap().0;
        assert!(named.would_enable("h2::codec", &Level::TRACE));

        let errors = LineFilter::parse("error").unwrap().0;
        assert!(!errors.would_enable("h2::codec", &Level::WARN));
    }
}
