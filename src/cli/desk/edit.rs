//! `hookyard dead-letters edit`: a corrected copy of a failed event.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Args;

use super::watch::follow;
use super::{Change, Form, open, told};
use crate::cli::{output, prompt};
use crate::desk::Edit;
use crate::error::BoxError;

/// What `edit` takes.
#[derive(Args)]
pub(in super::super) struct EditArgs {
    /// Id of the dead letter.
    id: String,
    /// The corrected message in a file, or `-` for stdin; $VISUAL or $EDITOR opens when not given.
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Do not wait for the end.
    #[arg(long)]
    detach: bool,
    /// A name for this request: given again, it makes no second copy.
    #[arg(long, value_name = "NAME")]
    request_id: Option<String>,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    form: Form,
}

/// Runs the command.
///
/// # Errors
/// What the desk refused, that nothing was corrected, or that the database is away.
pub(super) async fn edit(args: &EditArgs) -> Result<ExitCode, BoxError> {
    let by = args.change.by()?;
    let desk = open()?;
    let found = desk.dead_letter_with_payload(&args.id, &by).await;
    let found = found.map_err(told)?;
    let payload = found.payload.and_then(|payload| payload.text);
    let old = payload.unwrap_or_default();
    let new = match &args.file {
        Some(path) if path.as_os_str() == "-" => read(std::io::stdin())?,
        Some(path) => read(File::open(path).map_err(|error| named(path, &error))?)?,
        None => by_hand(&pretty_json(&old))?,
    };
    if compact(&new) == compact(&old) {
        return Err("nothing was changed: the copy is the same; `redrive` runs it as it is".into());
    }
    if serde_json::from_str::<serde::de::IgnoredAny>(&new).is_err() {
        return Err("nothing was changed: the corrected message is no JSON".into());
    }
    let id = &found.dead_letter.id;
    prompt::confirm(
        &format!("run a corrected copy of {id} under a new id?"),
        args.change.yes,
    )?;
    let ask = Edit {
        payload: new,
        request_id: args.request_id.clone(),
    };
    let edited = desk.edit(id, &ask, &by).await.map_err(told)?;
    if !args.form.json {
        let line = format!("the copy is event {}", edited.event_id);
        output::print(&line);
    }
    let begun = desk.redrive_detail(&edited.redrive_id).await;
    let begun = begun.map_err(told)?.redrive;
    follow(&desk, begun, args.detach, args.form).await
}

fn read(mut from: impl Read) -> Result<String, BoxError> {
    let mut text = String::new();
    let read = from.read_to_string(&mut text);
    read.map_err(|error| format!("the corrected message cannot be read: {error}"))?;
    Ok(text)
}

fn named(path: &Path, error: &std::io::Error) -> BoxError {
    format!("{}: {error}", path.display()).into()
}

/// Lets somebody change the text in an editor, in a file that only its owner can read.
#[expect(
    clippy::disallowed_methods,
    reason = "the editor of whoever sits here is no configuration"
)]
fn by_hand(text: &str) -> Result<String, BoxError> {
    if !std::io::stdin().is_terminal() {
        return Err("give the corrected message with --file: no terminal to edit on".into());
    }
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR"));
    let editor = editor.ok_or("set EDITOR, or give the corrected message with --file")?;
    let name = format!("hookyard-{:016x}.json", rand::random::<u64>());
    let file = Leftover(std::env::temp_dir().join(name));
    let mut out = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&file.0)
        .map_err(|error| named(&file.0, &error))?;
    out.write_all(text.as_bytes())?;
    drop(out);
    // As git does: EDITOR may hold arguments.
    let ended = Command::new("sh")
        .arg("-c")
        .arg(format!("{editor} \"$1\""))
        .arg("sh")
        .arg(&file.0)
        .status()?;
    if !ended.success() {
        return Err("nothing was changed: the editor failed".into());
    }
    read(File::open(&file.0).map_err(|error| named(&file.0, &error))?)
}

/// A file with row data, gone when this is dropped.
struct Leftover(PathBuf);

impl Drop for Leftover {
    fn drop(&mut self) {
        // An editor may have moved it away.
        std::fs::remove_file(&self.0).ok();
    }
}

/// Takes the space between tokens out, so that only values and names are compared.
fn compact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    walk(text, |c, in_string| {
        if in_string || !c.is_whitespace() {
            out.push(c);
        }
    });
    out
}

/// Breaks JSON into lines and touches nothing else: numbers, order and escapes stay as written.
pub(super) fn pretty_json(text: &str) -> String {
    let text = compact(text);
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0_usize;
    let mut before = ' ';
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&"  ".repeat(depth.min(100)));
    };
    walk(&text, |c, in_string| {
        let closes = !in_string && matches!(c, '}' | ']');
        if closes {
            depth = depth.saturating_sub(1);
            if !matches!(before, '{' | '[') {
                line(&mut out, depth);
            }
        } else if matches!(before, '{' | '[' | ',') {
            line(&mut out, depth);
        }
        out.push(c);
        before = if in_string { 'x' } else { c };
        match c {
            '{' | '[' if !in_string => depth += 1,
            ':' if !in_string => out.push(' '),
            _ => {}
        }
    });
    out.push('\n');
    out
}

/// Goes through the characters and says of each whether it belongs to a string, quotes included.
fn walk(text: &str, mut each: impl FnMut(char, bool)) {
    let (mut in_string, mut escaped) = (false, false);
    for c in text.chars() {
        let was = in_string;
        if in_string {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => in_string = false,
                _ => {}
            }
        } else if c == '"' {
            in_string = true;
        }
        each(c, was || in_string);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaking_lines_changes_no_value() {
        let text = r#"{"b":1.10e5 ,"a":[], "c":{}, "s":"x, {\"y\": [1]}","l":[1,{"z":null}]}"#;

        let pretty = pretty_json(text);

        let expected = "{\n  \"b\": 1.10e5,\n  \"a\": [],\n  \"c\": {},\n  \
            \"s\": \"x, {\\\"y\\\": [1]}\",\n  \"l\": [\n    1,\n    {\n      \"z\": null\n    }\n  ]\n}\n";
        assert_eq!(pretty, expected);
        assert_eq!(compact(&pretty), compact(text));
    }

    #[test]
    fn a_string_as_first_element_gets_a_line_too() {
        assert_eq!(pretty_json(r#"["a","b"]"#), "[\n  \"a\",\n  \"b\"\n]\n");
    }

    #[test]
    fn what_is_no_json_survives() {
        for text in ["", "plain", "\"open", "}}}", "日本 \u{0}"] {
            pretty_json(text);
        }
    }

    #[test]
    fn the_file_with_row_data_is_gone_afterwards() {
        let path = std::env::temp_dir().join(format!("hookyard-{:x}", rand::random::<u64>()));
        std::fs::write(&path, "x").unwrap();

        drop(Leftover(path.clone()));

        assert!(!path.exists());
    }
}
