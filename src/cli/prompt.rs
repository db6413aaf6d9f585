//! Asks before something is changed.

use std::io::{BufRead, IsTerminal, Write};

use crate::error::BoxError;

/// Asks whether to go on, unless `yes` was given beforehand.
///
/// # Errors
/// When the answer is no, or there is no terminal to ask on.
pub(super) fn confirm(question: &str, yes: bool) -> Result<(), BoxError> {
    if yes {
        return Ok(());
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err("nothing was changed: no terminal to ask on; give --yes".into());
    }
    // Questions are no output: stdout may be a file or a pipe.
    match confirmed(question, &mut stdin.lock(), &mut std::io::stderr().lock())? {
        true => Ok(()),
        false => Err("nothing was changed".into()),
    }
}

/// Anything but a yes is a no.
fn confirmed(
    question: &str,
    answers: &mut impl BufRead,
    questions: &mut impl Write,
) -> std::io::Result<bool> {
    write!(questions, "{question} [y/N] ")?;
    questions.flush()?;
    let mut answer = String::new();
    answers.read_line(&mut answer)?;
    let answer = answer.trim();
    Ok(answer.eq_ignore_ascii_case("y") || answer.eq_ignore_ascii_case("yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_a_yes() {
        for (answer, expected) in [
            ("y\n", true),
            ("YES\n", true),
            ("\n", false),
            ("no\n", false),
            ("", false),
            ("yep\n", false),
        ] {
            let mut asked = Vec::new();
            let confirmed = confirmed("go on?", &mut answer.as_bytes(), &mut asked).unwrap();
            assert_eq!(confirmed, expected, "{answer:?}");
            assert_eq!(asked, b"go on? [y/N] ");
        }
    }
}
