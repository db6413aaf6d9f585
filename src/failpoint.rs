//! Points at which a test lets this process die or stop, to see what is left behind.
//!
//! Compiled with the feature `sandbox` only; without it nothing of this is in the binary.

/// What was said in `HOOKYARD_FAIL_AT`, such as `after_claim:2`: die when `after_claim` is reached
/// for the second time, or `handler=user.verified`: die when a handler gets an event of this type.
/// With `stop@` before it the process does not die there but stops, as with `kill -STOP`. Several
/// are separated by commas.
#[cfg(feature = "sandbox")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Point {
        name: String,
        left: AtomicU32,
        stops: bool,
    }

    static POINTS: OnceLock<Vec<Point>> = OnceLock::new();

    #[expect(
        clippy::disallowed_methods,
        reason = "no configuration of the service: it does not exist in production"
    )]
    fn read() -> Vec<Point> {
        let given = std::env::var("HOOKYARD_FAIL_AT").unwrap_or_default();
        let points = given.split(',').filter(|point| !point.is_empty());
        let point = |text: &str| {
            let (name, count) = text.split_once(':').unwrap_or((text, "1"));
            let stops = name.strip_prefix("stop@");
            Point {
                stops: stops.is_some(),
                name: stops.unwrap_or(name).to_owned(),
                left: AtomicU32::new(count.parse().unwrap_or(1).max(1)),
            }
        };
        points.map(point).collect()
    }

    /// The whole process, with whatever its other threads have in hand, until somebody wakes it.
    fn stop() {
        let mut kill = std::process::Command::new("kill");
        kill.arg("-STOP").arg(std::process::id().to_string());
        kill.status().ok();
    }

    pub(super) fn reach(is_here: impl Fn(&str) -> bool) {
        for point in POINTS.get_or_init(read) {
            if is_here(&point.name) && point.left.fetch_sub(1, Ordering::SeqCst) == 1 {
                if point.stops {
                    stop();
                    continue;
                }
                // Nothing is dropped, flushed or answered: as with `kill -9`.
                std::process::abort();
            }
        }
    }
}

/// Dies here when `HOOKYARD_FAIL_AT` says so.
#[cfg(feature = "sandbox")]
pub(crate) fn reach(name: &'static str) {
    armed::reach(|point| point == name);
}

/// Dies here when `HOOKYARD_FAIL_AT` says so of this very thing.
#[cfg(feature = "sandbox")]
pub(crate) fn reach_with(name: &'static str, what: &str) {
    armed::reach(|point| point.split_once('=') == Some((name, what)));
}

/// Does nothing.
#[cfg(not(feature = "sandbox"))]
#[inline(always)]
pub(crate) fn reach(_name: &'static str) {}

/// Does nothing.
#[cfg(not(feature = "sandbox"))]
#[inline(always)]
pub(crate) fn reach_with(_name: &'static str, _what: &str) {}
