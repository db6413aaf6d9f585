//! Push requests built ahead of time: sending one means patching a number and maybe a token.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// Digits of the number in an event's id. In base64 they are 16 characters that begin at a
/// multiple of four, because 33 bytes stand before them.
const DIGITS: usize = 12;
const BEFORE_DIGITS: usize = 33;

/// Size of the body.
pub(crate) const BODY_BYTES: usize = 1_500;

/// One push request over HTTP/1.1, ready to send.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) bytes: Vec<u8>,
    token_at: usize,
    digits_at: usize,
}

impl Request {
    /// A change of a contract's status; without an old one, an insert.
    pub(crate) fn new(token: &str, old: Option<&str>, new: &str) -> Self {
        let body = (0..)
            .map(|padding| body(old, new, padding))
            .find(|body| body.len() >= BODY_BYTES)
            .unwrap();
        let head = format!(
            "POST /push HTTP/1.1\r\nhost: hookyard.example\r\ncontent-type: application/json\r\n\
             accept: application/json\r\nfrom: noreply@google.com\r\n\
             user-agent: APIs-Google; (+https://developers.google.com/webmasters/APIs-Google.html)\r\n\
             content-length: {}\r\nauthorization: Bearer ",
            body.len()
        );
        let text = format!("{head}{token}\r\n\r\n{body}");
        let data_at = text.find(r#""data":""#).unwrap() + r#""data":""#.len();
        Self {
            token_at: head.len(),
            digits_at: data_at + BEFORE_DIGITS / 3 * 4,
            bytes: text.into_bytes(),
        }
    }

    /// Gives the event another id.
    pub(crate) fn set_number(&mut self, number: u64) {
        let mut digits = [b'0'; DIGITS];
        let mut rest = number;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap();
            rest /= 10;
        }
        let place = &mut self.bytes[self.digits_at..self.digits_at + DIGITS / 3 * 4];
        BASE64_STANDARD.encode_slice(digits, place).unwrap();
    }

    /// Gives the request another token of the same length.
    pub(crate) fn set_token(&mut self, token: &str) {
        self.bytes[self.token_at..self.token_at + token.len()].copy_from_slice(token.as_bytes());
    }
}

fn body(old: Option<&str>, new: &str, padding: usize) -> String {
    let row = |status: &str| {
        format!(
            r#"{{"id":"6dbf43d9-8f8e-4a2c-8a3b-0f1f1a1c9a51","subscription_id":"sub_16CHu2UWsBnxq1yQ","status":"{status}","amount_cents":29700,"updated_at":"2026-01-05T10:00:00.601701+00:00","notes":"{}"}}"#,
            "n".repeat(padding)
        )
    };
    let op = if old.is_some() { "UPDATE" } else { "INSERT" };
    let event = format!(
        r#"{{ "id": "85558393-c75d-4d2f-9c15-{:012}","created_at":"2026-01-05T10:00:00.601701","delivery_info":{{"current_retry":0,"max_retries":5}},"trigger":{{"name":"contract_events"}},"table":{{"schema":"public","name":"contracts"}},"event":{{"op":"{op}","data":{{"old":{},"new":{}}},"session_variables":{{"x-hasura-role":"user"}},"trace_context":{{"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7"}}}}}}"#,
        0,
        old.map_or_else(|| "null".to_owned(), row),
        row(new),
    );
    assert_eq!(event.find("000000000000"), Some(BEFORE_DIGITS));
    let data = BASE64_STANDARD.encode(event);
    format!(
        r#"{{"message":{{"data":"{data}","messageId":"13571113171923","message_id":"13571113171923","publishTime":"2026-01-05T10:00:01.749Z","publish_time":"2026-01-05T10:00:01.749Z"}},"subscription":"projects/bench/subscriptions/contracts"}}"#
    )
}
