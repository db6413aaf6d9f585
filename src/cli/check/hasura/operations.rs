//! The operations of `graphql/` against the schema as a role sees it.

use serde_json::Value;

use super::super::report::{Finding, word};
use super::Api;
use crate::cli::hasura::{INTROSPECTION, misfits};

/// What the reference handlers send.
const OPERATIONS: &[(&str, &str)] = &[
    (
        "contract_by_id",
        include_str!("../../../../graphql/contract_by_id.graphql"),
    ),
    (
        "link_subscription",
        include_str!("../../../../graphql/link_subscription.graphql"),
    ),
];

/// Asks for the whole schema, as the role sees it or as the admin does.
pub(super) async fn schema(api: &Api, as_role: bool) -> Result<Value, String> {
    api.introspect(INTROSPECTION, as_role).await
}

/// Checks every operation against what introspection answered.
pub(super) fn judge(schema: Result<Value, String>, role: Option<&str>) -> Vec<Finding> {
    const CHECK: &str = "Hasura operations";
    let texts: Vec<&str> = OPERATIONS.iter().map(|(_, text)| *text).collect();
    let misfits = match schema {
        Ok(schema) if schema.get("__schema").is_none_or(Value::is_null) => {
            return vec![Finding::skipped(CHECK, "introspection is switched off")];
        }
        Ok(schema) => misfits(schema, &texts),
        Err(why) => return vec![Finding::skipped(CHECK, why)],
    };
    let Ok(misfits) = misfits else {
        return vec![Finding::skipped(CHECK, "the schema cannot be read")];
    };
    let whose = role.map_or_else(
        || "the admin".to_owned(),
        |role| format!("the role `{role}`"),
    );
    let (breaks, option) = match role {
        Some(role) => (
            "give the role the right to select what is read and to update what is set, or the \
             handler's events come again without end",
            format!(" --role={}", word(role)),
        ),
        None => (
            "track the table, or bring graphql/ up to date (scripts/refresh-schema.sh), or the \
             handler's events come again without end",
            String::new(),
        ),
    };
    let named = OPERATIONS.iter().zip(misfits);
    let bad = named.filter(|(_, misfits)| !misfits.is_empty());
    let findings: Vec<Finding> = bad
        .map(|((name, _), misfits)| {
            let found = format!("{} (for {whose})", misfits.join("; "));
            let finding = Finding::failed(CHECK, found, breaks).of(*name);
            finding.mend(format!("hookyard hasura operations --live{option}"))
        })
        .collect();
    if findings.is_empty() {
        let found = format!("{} are possible for {whose}", OPERATIONS.len());
        return vec![Finding::ok(CHECK, found)];
    }
    findings
}

/// Returns a type's columns whose values may be of any size and hardly are keys or names.
pub(super) fn large_columns(schema: &Value, type_name: &str) -> Vec<String> {
    let types = schema.pointer("/__schema/types").and_then(Value::as_array);
    let of_name = |it: &&Value| it["name"] == type_name;
    let found = types.and_then(|types| types.iter().find(of_name));
    let fields = found.and_then(|it| it["fields"].as_array());
    let large = fields.into_iter().flatten().filter(|field| {
        let scalar = [&field["type"]["name"], &field["type"]["ofType"]["name"]];
        let mut names = scalar.into_iter().filter_map(Value::as_str);
        names.any(|name| matches!(name, "json" | "jsonb" | "bytea"))
    });
    large
        .filter_map(|field| field["name"].as_str().map(str::to_owned))
        .collect()
}
