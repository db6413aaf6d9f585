//! How long the chain of our own writes behind an event is: the way to notice a loop.
//!
//! A handler's write to Hasura fires triggers whose events come back here. Hasura makes session
//! variables of the `x-hasura-*` headers that come with the admin secret, and writes them into the
//! event (<https://hasura.io/docs/2.0/event-triggers/payload/>), so the count travels through it.

/// Header and session variable with the number of our own writes behind an event.
pub const DEPTH_VARIABLE: &str = "x-hasura-event-depth";

/// Header and session variable with the id of the event whose handler wrote.
pub const CAUSE_VARIABLE: &str = "x-hasura-event-cause";

/// Attribute of emitted events with the same number.
pub const DEPTH_ATTRIBUTE: &str = "ce-eventdepth";

/// Reads a depth. What is no number was not written by us and says nothing; a number that is too
/// large is the deepest there is.
pub fn depth_of(text: &str) -> u32 {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(depth) => depth,
        Err(_) if digits => u32::MAX,
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::depth_of;

    #[test]
    fn only_numbers_count() {
        let cases = [
            ("0", 0),
            ("7", 7),
            ("99999999999", u32::MAX),
            ("-1", 0),
            ("", 0),
            ("seven", 0),
        ];
        for (text, depth) in cases {
            assert_eq!(depth_of(text), depth, "{text}");
        }
    }
}
