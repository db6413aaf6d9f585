//! Puts the log lines together: filter, format, writer, and layers of others beside them.

use std::io::Write;

use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

use super::fields::Style;
use super::filter::LineFilter;
use super::layer::{Constants, LineLayer};
use super::panics;
use super::writer::Lines;
use crate::clock::{SharedClock, SystemClock};
use crate::config::{LogConfig, LogFormat};
use crate::error::BoxError;

/// A layer that sees spans and events beside the log lines, with a filter of its own.
pub type ExtraLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Builds the process's log.
pub struct Logs {
    filter: Result<LineFilter, ParseError>,
    constants: Constants,
    extra: Vec<ExtraLayer>,
    out: Box<dyn Write + Send>,
    clock: SharedClock,
}

/// Writes what is still waiting when it is dropped; keep it until the process ends.
#[must_use = "lines that wait are lost when the guard is not kept"]
pub struct Guard(Lines);

impl Guard {
    /// Waits until every line so far is written, at most a second.
    pub fn flush(&self) {
        self.0.flush();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Starts logging to stdout for the whole process, and logs panics from now on.
///
/// # Errors
/// When logging was started before, or the level cannot be read.
pub fn init(config: &LogConfig, project: Option<&str>) -> Result<Guard, BoxError> {
    Logs::new(config, project).install()
}

impl Logs {
    /// Prepares logging to stdout; `project` makes trace ids links in the Cloud console.
    pub fn new(config: &LogConfig, project: Option<&str>) -> Self {
        let style = match config.format {
            LogFormat::Json => Style::Json,
            LogFormat::Pretty => Style::Pretty {
                colour: config.colour,
            },
        };
        Self {
            filter: LineFilter::parse(&config.level),
            constants: Constants::new(style, project, &config.service, &config.revision),
            extra: Vec::new(),
            out: Box::new(std::io::stdout()),
            clock: SystemClock::shared(),
        }
    }

    /// Adds a layer. It sees what its own filter lets through, whatever the level of the lines is.
    #[must_use]
    pub fn layer(mut self, layer: impl Layer<Registry> + Send + Sync) -> Self {
        self.extra.push(layer.boxed());
        self
    }

    /// Writes to `out` instead of stdout.
    #[must_use]
    pub fn to(mut self, out: impl Write + Send + 'static) -> Self {
        self.out = Box::new(out);
        self
    }

    /// Takes times from `clock`.
    #[must_use]
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Starts logging for the whole process, and logs panics from now on.
    ///
    /// # Errors
    /// As [`init`].
    pub fn install(self) -> Result<Guard, BoxError> {
        let (dispatch, guard) = self.build()?;
        tracing::dispatcher::set_global_default(dispatch)?;
        panics::install();
        Ok(guard)
    }

    /// Returns a dispatcher to be set for one thread, as tests do.
    ///
    /// # Errors
    /// When the level cannot be read or the writer's thread cannot be started.
    pub fn build(self) -> Result<(tracing::Dispatch, Guard), BoxError> {
        let constants = self.constants.clone();
        let tell = move |count, out: &mut Vec<u8>| constants.tell_dropped(count, out);
        let lines = Lines::start(self.out, Box::new(tell))?;
        let layer = LineLayer::new(self.constants, lines.clone(), self.clock);
        let mut layers = self.extra;
        layers.push(layer.with_filter(self.filter?).boxed());
        let registry = Registry::default().with(layers);
        Ok((tracing::Dispatch::new(registry), Guard(lines)))
    }
}
