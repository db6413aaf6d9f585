//! How far long work has come, on stderr.

use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Cells of the bar.
const WIDTH: usize = 28;

/// One line on a terminal that is written over again and again; elsewhere nothing.
#[derive(Debug)]
pub(super) struct Progress {
    shown: bool,
    terminal: bool,
}

/// How far it has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    /// So many have ended.
    pub(super) ended: u64,
    /// Of so many.
    pub(super) total: u64,
    /// Since the first look.
    pub(super) elapsed: Duration,
    /// So many had ended at the first look.
    pub(super) before: u64,
}

impl Progress {
    /// Starts without showing anything.
    pub(super) fn new() -> Self {
        Self {
            shown: false,
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Shows how far it is; `note` is what else there is to say.
    pub(super) fn show(&mut self, at: At, note: &str) {
        if self.terminal {
            self.shown = true;
            // A terminal that is gone needs no progress.
            let mut out = std::io::stderr().lock();
            write!(out, "\r\x1b[K{}  {note}", line(at)).ok();
            out.flush().ok();
        }
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            write!(std::io::stderr().lock(), "\r\x1b[K").ok();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn line(at: At) -> String {
    let total = at.total.max(at.ended);
    let share = if total == 0 {
        1.0
    } else {
        at.ended as f64 / total as f64
    };
    let full = ((share * WIDTH as f64) as usize).min(WIDTH);
    let bar: String = "█".repeat(full) + &"░".repeat(WIDTH - full);
    let seconds = at.elapsed.as_secs_f64();
    let done = at.ended.saturating_sub(at.before);
    let pace = match seconds {
        seconds if seconds > 0.5 => done as f64 / seconds,
        _ => 0.0,
    };
    let left = if pace > 0.0 && at.ended < total {
        let left = ((total - at.ended) as f64 / pace).ceil();
        format!("  {pace:.0}/s, {} left", short(left))
    } else {
        String::new()
    };
    format!(
        "{bar} {:3.0} %  {} of {total}{left}",
        share * 100.0,
        at.ended
    )
}

/// Writes a length of time in its two largest units.
pub(super) fn short(seconds: f64) -> String {
    let seconds = if seconds.is_finite() {
        seconds.max(0.0)
    } else {
        0.0
    };
    if seconds < 1.0 {
        return format!("{:.0} ms", seconds * 1000.0);
    }
    let whole = seconds.round() as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    match (days, hours, minutes, whole % 60) {
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, ..) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_share_pace_and_what_is_left() {
        let at = At {
            ended: 250,
            total: 1000,
            elapsed: Duration::from_secs(10),
            before: 50,
        };
        let line = line(at);
        assert!(line.starts_with("███████░"), "{line}");
        assert!(
            line.ends_with(" 25 %  250 of 1000  20/s, 38 s left"),
            "{line}"
        );
    }

    #[test]
    fn nothing_to_do_is_all_done() {
        let at = At {
            ended: 0,
            total: 0,
            elapsed: Duration::ZERO,
            before: 0,
        };
        assert!(line(at).contains("100 %  0 of 0"));
    }

    #[test]
    fn lengths_of_time_are_short() {
        for (seconds, text) in [
            (0.0, "0 ms"),
            (0.25, "250 ms"),
            (59.4, "59 s"),
            (61.0, "1 min 1 s"),
            (3_700.0, "1 h 1 min"),
            (90_000.0, "1 d 1 h"),
            (f64::NAN, "0 ms"),
        ] {
            assert_eq!(short(seconds), text);
        }
    }
}
