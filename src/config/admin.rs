//! Who may use the admin API.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};

use super::reader::{Reader, Variable};

const ADMIN_TOKEN: Variable = Variable::optional(
    "ADMIN_TOKEN",
    "–",
    "bearer token of the admin API and of `/metrics`, comma-separated while it is changed; unset = closed",
);
const ADMIN_READ_TOKEN: Variable = Variable::optional(
    "ADMIN_READ_TOKEN",
    "–",
    "as `ADMIN_TOKEN`, for those who may look and change nothing",
);

pub(super) const VARIABLES: &[&Variable] = &[&ADMIN_TOKEN, &ADMIN_READ_TOKEN];

/// What a caller of the admin API may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Look.
    Read,
    /// Look and change.
    Full,
}

/// The tokens of the admin API. Only their digests are kept.
#[derive(Clone, Default)]
pub struct AdminTokens {
    full: Vec<Digest>,
    read: Vec<Digest>,
}

impl std::fmt::Debug for AdminTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminTokens")
            .field("full", &self.full.len())
            .field("read", &self.read.len())
            .finish()
    }
}

impl AdminTokens {
    /// Takes tokens of both kinds; with none at all the admin API is closed.
    pub fn new(full: &[&str], read: &[&str]) -> Self {
        let digests = |tokens: &[&str]| tokens.iter().map(|token| of(token)).collect();
        Self {
            full: digests(full),
            read: digests(read),
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let full = reader.text(&ADMIN_TOKEN).unwrap_or_default();
        let read = reader.text(&ADMIN_READ_TOKEN).unwrap_or_default();
        let full = tokens(reader, &ADMIN_TOKEN, &full);
        let read = tokens(reader, &ADMIN_READ_TOKEN, &read);
        if read.iter().any(|token| full.contains(token)) {
            reader.problem(
                ADMIN_READ_TOKEN.name,
                "holds a token of ADMIN_TOKEN, which may change everything",
            );
        }
        Self::new(&full, &read)
    }

    /// Tells whether there is no token that opens the admin API.
    pub fn is_closed(&self) -> bool {
        self.full.is_empty() && self.read.is_empty()
    }

    /// Returns what the holder of `given` may do.
    ///
    /// Takes the same time for every token: digests of one length are compared, and all of them.
    pub fn access(&self, given: &str) -> Option<Access> {
        let given = of(given);
        let is_among = |digests: &[Digest]| {
            digests.iter().fold(false, |found, known| {
                found | verify_slices_are_equal(known.as_ref(), given.as_ref()).is_ok()
            })
        };
        let (full, read) = (is_among(&self.full), is_among(&self.read));
        match (full, read) {
            (true, _) => Some(Access::Full),
            (false, true) => Some(Access::Read),
            (false, false) => None,
        }
    }
}

fn of(token: &str) -> Digest {
    digest(&SHA256, token.as_bytes())
}

/// Splits a list. An empty item is a slip, such as a variable of the shell that was not set.
fn tokens<'a>(reader: &mut Reader<'_>, variable: &Variable, text: &'a str) -> Vec<&'a str> {
    if text.is_empty() {
        return Vec::new();
    }
    let items: Vec<&str> = text.split(',').map(str::trim).collect();
    // What does not fit into a header as it is could never be sent.
    let usable = |token: &&str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    if !items.iter().all(usable) {
        reader.problem(
            variable.name,
            "must hold tokens of visible ASCII characters, separated by single commas",
        );
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(full: &str, read: &str) -> Result<AdminTokens, String> {
        let lookup = |name: &str| match name {
            "ADMIN_TOKEN" => Some(full.to_owned()),
            "ADMIN_READ_TOKEN" => Some(read.to_owned()),
            _ => None,
        };
        let mut reader = Reader::new(&lookup);
        let tokens = AdminTokens::read(&mut reader);
        reader.finish().map_err(|error| error.to_string())?;
        Ok(tokens)
    }

    #[test]
    fn old_and_new_token_work_while_one_replaces_the_other() {
        let tokens = read("new, old", "look").unwrap();

        assert_eq!(tokens.access("new"), Some(Access::Full));
        assert_eq!(tokens.access("old"), Some(Access::Full));
        assert_eq!(tokens.access("look"), Some(Access::Read));
        for other in ["", "ne", "new,", "new, old", "OLD", " new"] {
            assert_eq!(tokens.access(other), None, "{other:?}");
        }
        assert!(!tokens.is_closed());
        assert_eq!(format!("{tokens:?}"), "AdminTokens { full: 2, read: 1 }");
    }

    #[test]
    fn without_tokens_nothing_opens_it() {
        let tokens = read(" ", "").unwrap();

        assert!(tokens.is_closed());
        assert_eq!(tokens.access(""), None);
    }

    #[test]
    fn slips_in_the_lists_are_told_without_their_values() {
        for (full, look) in [
            ("a,,b", ""),
            (",", ""),
            ("a b", ""),
            ("a", "b,a"),
            ("", "é"),
        ] {
            let error = read(full, look).unwrap_err();
            assert!(error.contains("ADMIN_"), "{error}");
            assert!(!error.contains("a b") && !error.contains('é'), "{error}");
        }
    }
}
