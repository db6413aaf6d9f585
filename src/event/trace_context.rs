//! W3C trace context: which trace an event belongs to.
//!
//! Format: <https://www.w3.org/TR/trace-context/#traceparent-header>.

use std::fmt;

/// A trace and the span in it that caused what follows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    sampled: bool,
    /// Whether whoever made the trace has decided about `sampled`, or left it to others.
    decided: bool,
}

impl TraceContext {
    /// Starts a new trace.
    pub fn new_root() -> Self {
        Self {
            trace_id: rand::random::<u128>() | 1,
            span_id: rand::random::<u64>() | 1,
            sampled: true,
            decided: false,
        }
    }

    /// Reads a `traceparent` value; `None` when it is not one.
    pub fn parse(traceparent: &str) -> Option<Self> {
        let bytes = traceparent.as_bytes();
        // version "-" trace-id "-" parent-id "-" flags; later versions may append more.
        let shaped = bytes.len() >= 55
            && bytes.is_ascii()
            && [2, 35, 52].iter().all(|&i| bytes[i] == b'-')
            && (bytes.len() == 55 || bytes[55] == b'-');
        if !shaped || &bytes[..2] == b"ff" || (&bytes[..2] == b"00" && bytes.len() != 55) {
            return None;
        }
        let flags = hex(&traceparent[53..55])?;
        hex(&traceparent[..2])?;
        Self::from_ids(
            hex(&traceparent[3..35])?,
            hex(&traceparent[36..52])? as u64,
            flags & 1 == 1,
        )
    }

    /// Makes a context of ids; `None` when one of them is zero, which the standard forbids.
    pub fn from_ids(trace_id: u128, span_id: u64, sampled: bool) -> Option<Self> {
        (trace_id != 0 && span_id != 0).then_some(Self {
            trace_id,
            span_id,
            sampled,
            decided: true,
        })
    }

    /// Reads an id of Hasura's `trace_context` given as text: hexadecimal of the usual length, or
    /// in some versions a decimal number that need not fit in 64 bits.
    pub(super) fn hasura_id(text: &str) -> Option<u128> {
        match text.len() {
            16 | 32 => hex(text),
            _ => text.parse().ok(),
        }
    }

    /// Makes a context of the two ids of Hasura's `trace_context`; `None` without a trace id.
    ///
    /// `sampling` is its `sampling_state`: `1` and `0`, or left out when Hasura has not decided.
    pub(super) fn from_hasura(
        trace_id: u128,
        span_id: Option<u128>,
        sampling: Option<&str>,
    ) -> Option<Self> {
        let span_id = span_id.map_or(0, |id| id as u64);
        let span_id = if span_id == 0 {
            rand::random::<u64>() | 1
        } else {
            span_id
        };
        let context = Self::from_ids(trace_id, span_id, sampling != Some("0"))?;
        Some(Self {
            decided: matches!(sampling, Some("0" | "1")),
            ..context
        })
    }

    /// Returns a context in the same trace under a new span id.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            span_id: rand::random::<u64>() | 1,
            ..*self
        }
    }

    /// Returns the same ids with a decision whether the trace is recorded.
    #[must_use]
    pub fn with_sampled(&self, sampled: bool) -> Self {
        Self {
            sampled,
            decided: true,
            ..*self
        }
    }

    /// Returns the trace id as 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        digits(self.trace_id, 32)
    }

    /// Returns the span id as 16 hexadecimal digits.
    pub fn span_id(&self) -> String {
        digits(self.span_id.into(), 16)
    }

    /// Returns the trace id as bytes, most significant first.
    pub fn trace_id_bytes(&self) -> [u8; 16] {
        self.trace_id.to_be_bytes()
    }

    /// Returns the span id as bytes, most significant first.
    pub fn span_id_bytes(&self) -> [u8; 8] {
        self.span_id.to_be_bytes()
    }

    /// Returns the span id as a number, which log lines write as hexadecimal digits.
    pub fn span_number(&self) -> u64 {
        self.span_id
    }

    /// Tells whether the caller records this trace.
    pub fn sampled(&self) -> bool {
        self.sampled
    }

    /// Returns [`TraceContext::sampled`] if somebody has decided it; `None` for a new trace, and
    /// for one that came without a word about it.
    pub fn decision(&self) -> Option<bool> {
        self.decided.then_some(self.sampled)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled);
        write!(
            f,
            "00-{:032x}-{:016x}-{flags:02x}",
            self.trace_id, self.span_id
        )
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads at most 32 lower- or upper-case hexadecimal digits (`from_str_radix` would take a sign).
fn hex(text: &str) -> Option<u128> {
    text.chars().try_fold(0, |number, digit| {
        Some(number << 4 | u128::from(digit.to_digit(16)?))
    })
}

/// Writes the lowest `count` hexadecimal digits; `format!` would cost several times as much, and
/// every event's line has two of these.
fn digits(number: u128, count: usize) -> String {
    let mut text = String::with_capacity(count);
    for place in (0..count).rev() {
        let digit = b"0123456789abcdef"[(number >> (4 * place)) as usize & 15];
        text.push(char::from(digit));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_comes_out_as_it_went_in() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(TraceContext::parse(text).unwrap().to_string(), text);
    }

    #[test]
    fn what_is_not_a_traceparent_is_ignored() {
        let long = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
        let zero = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        let sign = "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let wide = "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01";
        for text in ["", "00", long, zero, sign, wide] {
            assert_eq!(TraceContext::parse(text), None, "{text}");
        }
    }

    #[test]
    fn hasura_may_leave_the_decision_to_others() {
        let decision = |state| {
            TraceContext::from_hasura(1, Some(2), state)
                .unwrap()
                .decision()
        };
        assert_eq!(decision(Some("1")), Some(true));
        assert_eq!(decision(Some("0")), Some(false));
        assert_eq!(decision(None), None);
        assert_eq!(TraceContext::new_root().child().decision(), None);
    }

    #[test]
    fn hasura_ids_may_be_hexadecimal_or_decimal() {
        assert_eq!(
            TraceContext::hasura_id("00f067aa0ba902b7"),
            Some(0x00f0_67aa_0ba9_02b7)
        );
        assert_eq!(
            TraceContext::hasura_id("18446744073709551615"),
            Some(u128::from(u64::MAX))
        );
        assert_eq!(TraceContext::hasura_id("tracing"), None);
    }
}
