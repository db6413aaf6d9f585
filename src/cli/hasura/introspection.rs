//! Turns what introspection answers into a schema in GraphQL's own language.
//!
//! Sorted by name and without descriptions, so that two versions of a schema differ only where
//! they mean something else. Format: <https://spec.graphql.org/October2021/#sec-Introspection>.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;

use crate::error::BoxError;

/// Asks for everything a schema file says.
pub(super) const QUERY: &str = "query Introspection {
  __schema {
    queryType { name } mutationType { name } subscriptionType { name }
    types {
      kind name
      fields(includeDeprecated: true) {
        name isDeprecated deprecationReason
        args { ...Input }
        type { ...Type }
      }
      inputFields { ...Input }
      interfaces { name }
      enumValues(includeDeprecated: true) { name isDeprecated deprecationReason }
      possibleTypes { name }
    }
  }
}
fragment Input on __InputValue { name defaultValue type { ...Type } }
fragment Type on __Type {
  kind name ofType { kind name ofType { kind name ofType { kind name ofType {
  kind name ofType { kind name ofType { kind name ofType { kind name } } } } } } }
}";

/// Scalars every schema has.
const BUILT_IN: [&str; 5] = ["Int", "Float", "String", "Boolean", "ID"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Schema {
    query_type: Named,
    mutation_type: Option<Named>,
    subscription_type: Option<Named>,
    types: Vec<Type>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Type {
    kind: String,
    name: String,
    fields: Option<Vec<Field>>,
    input_fields: Option<Vec<Input>>,
    interfaces: Option<Vec<Named>>,
    enum_values: Option<Vec<EnumValue>>,
    possible_types: Option<Vec<Named>>,
}

#[derive(Deserialize)]
struct Field {
    name: String,
    args: Vec<Input>,
    #[serde(rename = "type")]
    kind: TypeRef,
    #[serde(flatten)]
    deprecated: Deprecated,
}

#[derive(Deserialize)]
struct EnumValue {
    name: String,
    #[serde(flatten)]
    deprecated: Deprecated,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Deprecated {
    #[serde(default)]
    is_deprecated: bool,
    deprecation_reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Input {
    name: String,
    default_value: Option<String>,
    #[serde(rename = "type")]
    kind: TypeRef,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TypeRef {
    kind: String,
    name: Option<String>,
    of_type: Option<Box<TypeRef>>,
}

/// Writes the schema that `data` of an introspection describes.
///
/// # Errors
/// When it describes none.
pub(super) fn sdl(data: Value) -> Result<String, BoxError> {
    let Value::Object(mut data) = data else {
        return Err("the introspection holds no schema".into());
    };
    let schema = data.remove("__schema").unwrap_or_default();
    let mut schema: Schema = serde_json::from_value(schema)
        .map_err(|_| "the introspection is not in the shape of the GraphQL specification")?;
    schema.types.sort_by(|a, b| a.name.cmp(&b.name));

    let mut text = String::from("schema {\n");
    let roots = [
        ("query", Some(&schema.query_type)),
        ("mutation", schema.mutation_type.as_ref()),
        ("subscription", schema.subscription_type.as_ref()),
    ];
    for (operation, root) in roots {
        if let Some(root) = root {
            line(&mut text, &format!("  {operation}: {}", root.name));
        }
    }
    text.push_str("}\n");
    for definition in &schema.types {
        let name = definition.name.as_str();
        if !name.starts_with("__") && !BUILT_IN.contains(&name) {
            text.push('\n');
            text.push_str(&definition.sdl());
        }
    }
    Ok(text)
}

fn line(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    writeln!(text, "{line}").ok();
}

impl Type {
    fn sdl(&self) -> String {
        let name = &self.name;
        let mut text = String::new();
        match self.kind.as_str() {
            "SCALAR" => line(&mut text, &format!("scalar {name}")),
            "UNION" => {
                let of = names(self.possible_types.as_deref(), " | ");
                line(&mut text, &format!("union {name} = {of}"));
            }
            "ENUM" => {
                line(&mut text, &format!("enum {name} {{"));
                let mut values: Vec<&EnumValue> = self.enum_values.iter().flatten().collect();
                values.sort_by(|a, b| a.name.cmp(&b.name));
                for value in values {
                    line(
                        &mut text,
                        &format!("  {}{}", value.name, value.deprecated.sdl()),
                    );
                }
                line(&mut text, "}");
            }
            "INPUT_OBJECT" => {
                line(&mut text, &format!("input {name} {{"));
                for input in sorted(self.input_fields.as_deref()) {
                    line(&mut text, &format!("  {}", input.sdl()));
                }
                line(&mut text, "}");
            }
            kind => {
                let word = match kind {
                    "INTERFACE" => "interface",
                    _ => "type",
                };
                let implements = match names(self.interfaces.as_deref(), " & ") {
                    none if none.is_empty() => none,
                    names => format!(" implements {names}"),
                };
                line(&mut text, &format!("{word} {name}{implements} {{"));
                let mut fields: Vec<&Field> = self.fields.iter().flatten().collect();
                fields.sort_by(|a, b| a.name.cmp(&b.name));
                for field in fields {
                    line(&mut text, &format!("  {}", field.sdl()));
                }
                line(&mut text, "}");
            }
        }
        text
    }
}

fn names(types: Option<&[Named]>, between: &str) -> String {
    let mut names: Vec<&str> = types
        .iter()
        .copied()
        .flatten()
        .map(|t| t.name.as_str())
        .collect();
    names.sort_unstable();
    names.join(between)
}

fn sorted(inputs: Option<&[Input]>) -> Vec<&Input> {
    let mut inputs: Vec<&Input> = inputs.iter().copied().flatten().collect();
    inputs.sort_by(|a, b| a.name.cmp(&b.name));
    inputs
}

impl Field {
    fn sdl(&self) -> String {
        let arguments: Vec<String> = sorted(Some(&self.args))
            .into_iter()
            .map(Input::sdl)
            .collect();
        let arguments = match arguments.is_empty() {
            true => String::new(),
            false => format!("({})", arguments.join(", ")),
        };
        let (name, kind) = (&self.name, self.kind.sdl());
        format!("{name}{arguments}: {kind}{}", self.deprecated.sdl())
    }
}

impl Input {
    fn sdl(&self) -> String {
        let default = match &self.default_value {
            Some(value) => format!(" = {value}"),
            None => String::new(),
        };
        format!("{}: {}{default}", self.name, self.kind.sdl())
    }
}

impl Deprecated {
    fn sdl(&self) -> String {
        match (self.is_deprecated, &self.deprecation_reason) {
            (false, _) => String::new(),
            (true, None) => " @deprecated".to_owned(),
            // A JSON string is a GraphQL string.
            (true, Some(reason)) => {
                format!(" @deprecated(reason: {})", Value::from(reason.as_str()))
            }
        }
    }
}

impl TypeRef {
    fn sdl(&self) -> String {
        let inner = || self.of_type.as_deref().map_or_else(String::new, Self::sdl);
        match self.kind.as_str() {
            "NON_NULL" => format!("{}!", inner()),
            "LIST" => format!("[{}]", inner()),
            _ => self.name.clone().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_of_type_is_written_and_sorted() {
        let named = |kind: &str, name: &str| json!({"kind": kind, "name": name, "ofType": null});
        let of = |kind: &str, inner: Value| json!({"kind": kind, "name": null, "ofType": inner});
        let ids = of(
            "NON_NULL",
            of("LIST", of("NON_NULL", named("SCALAR", "ID"))),
        );
        let data = json!({"__schema": {
            "queryType": {"name": "query_root"},
            "mutationType": null,
            "subscriptionType": null,
            "types": [
                {"kind": "SCALAR", "name": "String"},
                {"kind": "OBJECT", "name": "__Type", "fields": []},
                {"kind": "SCALAR", "name": "uuid"},
                {"kind": "UNION", "name": "any", "possibleTypes": [{"name": "b"}, {"name": "a"}]},
                {"kind": "ENUM", "name": "order_by", "enumValues": [
                    {"name": "desc", "isDeprecated": true, "deprecationReason": "say \"asc\""},
                    {"name": "asc", "isDeprecated": false, "deprecationReason": null},
                ]},
                {"kind": "INPUT_OBJECT", "name": "where", "inputFields": [
                    {"name": "limit", "defaultValue": "10", "type": named("SCALAR", "Int")},
                    {"name": "_and", "defaultValue": null, "type": of("LIST", named("SCALAR", "Int"))},
                ]},
                {"kind": "OBJECT", "name": "query_root", "interfaces": [{"name": "node"}], "fields": [
                    {"name": "b", "args": [], "type": ids, "isDeprecated": false},
                    {"name": "a", "isDeprecated": true, "type": named("SCALAR", "Int"), "args": [
                        {"name": "where", "defaultValue": null, "type": named("INPUT_OBJECT", "where")},
                    ]},
                ]},
                {"kind": "INTERFACE", "name": "node", "interfaces": [], "fields": [
                    {"name": "b", "args": [], "type": ids, "isDeprecated": false},
                ]},
            ],
        }});

        let expected = "schema {\n  query: query_root\n}\n\n\
            union any = a | b\n\n\
            interface node {\n  b: [ID!]!\n}\n\n\
            enum order_by {\n  asc\n  desc @deprecated(reason: \"say \\\"asc\\\"\")\n}\n\n\
            type query_root implements node {\n  a(where: where): Int @deprecated\n  b: [ID!]!\n}\n\n\
            scalar uuid\n\n\
            input where {\n  _and: [Int]\n  limit: Int = 10\n}\n";
        assert_eq!(sdl(data).unwrap(), expected);
    }
}
