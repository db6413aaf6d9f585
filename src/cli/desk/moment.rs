//! Times as people write them on a command line.

use std::time::{Duration, SystemTime};

use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use crate::clock::{Clock, SystemClock};

/// Takes `2h` (ago), `2026-11-21`, `2026-11-21 09:00` or RFC 3339, and returns RFC 3339. Without
/// a zone it is UTC, as everything printed here.
///
/// # Errors
/// What can be written instead.
pub(super) fn moment(text: &str) -> Result<String, String> {
    parse(text.trim(), SystemClock.now()).ok_or_else(|| {
        "write 30m, 2h or 7d (ago), 2026-11-21, 2026-11-21 09:00 (UTC), or RFC 3339".to_owned()
    })
}

fn parse(text: &str, now: SystemTime) -> Option<String> {
    let at = match ago(text) {
        Some(ago) => OffsetDateTime::from(now.checked_sub(ago)?),
        None => {
            let full = match text.len() {
                10 => format!("{text}T00:00:00Z"),
                16 => format!("{text}:00Z"),
                19 => format!("{text}Z"),
                _ => text.to_owned(),
            };
            OffsetDateTime::parse(&full.replacen(' ', "T", 1), &Rfc3339).ok()?
        }
    };
    at.to_offset(UtcOffset::UTC).format(&Rfc3339).ok()
}

fn ago(text: &str) -> Option<Duration> {
    let unit = match text.as_bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3600,
        b'd' => 86_400,
        _ => return None,
    };
    let count: u64 = text[..text.len() - 1].trim().parse().ok()?;
    count.checked_mul(unit).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn times_can_be_written_shortly() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000); // 2027-01-15T08:00:00Z
        for (text, expected) in [
            ("30m", Some("2027-01-15T07:30:00Z")),
            ("2h", Some("2027-01-15T06:00:00Z")),
            ("7d", Some("2027-01-08T08:00:00Z")),
            ("2026-11-21", Some("2026-11-21T00:00:00Z")),
            ("2026-11-21 09:00", Some("2026-11-21T09:00:00Z")),
            ("2026-11-21T09:00:07", Some("2026-11-21T09:00:07Z")),
            (
                "2026-11-21T09:00:00.5+01:00",
                Some("2026-11-21T08:00:00.5Z"),
            ),
            ("yesterday", None),
            ("", None),
            ("m", None),
            ("-5m", None),
            ("99999999999999999999d", None),
            ("999999999999999d", None),
            ("2026-13-21", None),
        ] {
            assert_eq!(parse(text, now).as_deref(), expected, "{text}");
        }
    }
}
