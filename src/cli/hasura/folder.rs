//! Reads the files of a metadata folder, as Hasura's own command line writes them.
//!
//! Format: <https://hasura.io/docs/2.0/migrations-metadata-seeds/metadata-format/>. A file is taken
//! into another by a text that starts with `!include `.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::metadata::Metadata;
use crate::error::BoxError;

/// Files within files within files: Hasura's own layout needs two.
const MAX_DEPTH: usize = 8;

const INCLUDE: &str = "!include ";

/// Reads a metadata folder, or the project folder around it.
///
/// # Errors
/// Which file cannot be read or understood.
pub(super) fn read(folder: &Path) -> Result<Metadata, BoxError> {
    let places = [folder.to_owned(), folder.join("metadata")];
    let has_databases = |place: &&PathBuf| place.join("databases/databases.yaml").is_file();
    let Some(root) = places.iter().find(has_databases) else {
        let folder = folder.display();
        return Err(format!("{folder} holds no databases/databases.yaml").into());
    };
    let sources = whole(&root.join("databases/databases.yaml"), root, 0)?;
    let crons = root.join("cron_triggers.yaml");
    let cron_triggers = match crons.is_file() {
        true => whole(&crons, root, 0)?,
        false => Value::Null,
    };
    let list = |value: Value| match value {
        Value::Null => json!([]),
        value => value,
    };
    let all = json!({"sources": list(sources), "cron_triggers": list(cron_triggers)});
    // The parser's words may quote a header's value.
    serde_json::from_value(all)
        .map_err(|_| format!("{} is not in the shape of metadata v3", root.display()).into())
}

/// Reads a file and everything it includes.
fn whole(path: &Path, root: &Path, depth: usize) -> Result<Value, BoxError> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    let value = serde_saphyr::from_str(&text).map_err(|_| format!("{name} is not YAML"))?;
    include(value, path, root, depth)
}

fn include(value: Value, path: &Path, root: &Path, depth: usize) -> Result<Value, BoxError> {
    match value {
        Value::String(text) if text.starts_with(INCLUDE) => {
            let name = path.display();
            if depth == MAX_DEPTH {
                return Err(format!("{name}: files include each other too deeply").into());
            }
            let beside = path.parent().unwrap_or(root);
            let included = beside.join(text[INCLUDE.len()..].trim());
            let outside = || format!("{name} includes a file that is not in the folder");
            let real = included.canonicalize().map_err(|_| outside())?;
            if !real.starts_with(root.canonicalize()?) {
                return Err(outside().into());
            }
            whole(&included, root, depth + 1)
        }
        Value::Array(items) => {
            let items = items.into_iter();
            let items: Result<Vec<Value>, BoxError> =
                items.map(|item| include(item, path, root, depth)).collect();
            Ok(Value::Array(items?))
        }
        Value::Object(members) => {
            let members = members.into_iter();
            let members: Result<serde_json::Map<String, Value>, BoxError> = members
                .map(|(name, value)| Ok((name, include(value, path, root, depth)?)))
                .collect();
            Ok(Value::Object(members?))
        }
        other => Ok(other),
    }
}
