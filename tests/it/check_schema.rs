//! Introspection of a schema given as SDL.

use std::collections::HashMap;

use graphql_parser::schema::{
    Definition, Document, InputValue, Type, TypeDefinition, parse_schema,
};
use serde_json::{Value, json};

/// Kinds of types by their names.
type Kinds = HashMap<String, &'static str>;

/// Answers an introspection query with the whole schema, whatever part of it was asked for, and
/// any other query as `{ __typename }`.
pub(crate) fn answer(sdl: &str, question: &Value) -> Value {
    let question = question["query"].as_str().unwrap();
    assert!(question.starts_with("query"), "only queries are harmless");
    if !question.contains("__schema") {
        return json!({"data": {"__typename": "query_root"}});
    }
    let schema: Document<'static, String> = parse_schema::<String>(sdl).unwrap().into_static();
    json!({"data": {"__schema": describe(&schema)}})
}

fn describe(schema: &Document<'static, String>) -> Value {
    let mut kinds = Kinds::new();
    for name in ["Int", "Float", "String", "Boolean", "ID"] {
        kinds.insert(name.to_owned(), "SCALAR");
    }
    for definition in &schema.definitions {
        if let Definition::TypeDefinition(it) = definition {
            let (name, kind) = match it {
                TypeDefinition::Object(it) => (&it.name, "OBJECT"),
                TypeDefinition::InputObject(it) => (&it.name, "INPUT_OBJECT"),
                TypeDefinition::Scalar(it) => (&it.name, "SCALAR"),
                other => panic!("unexpected {other}"),
            };
            kinds.insert(name.clone(), kind);
        }
    }
    let mut answer = json!({"types": [], "mutationType": null, "subscriptionType": null});
    for definition in &schema.definitions {
        match definition {
            Definition::SchemaDefinition(root) => {
                let name = |it: &Option<String>| it.as_ref().map(|name| json!({"name": name}));
                answer["queryType"] = name(&root.query).into();
                answer["mutationType"] = name(&root.mutation).into();
            }
            Definition::TypeDefinition(it) => {
                let types = answer["types"].as_array_mut().unwrap();
                types.push(type_of(it, &kinds));
            }
            _ => {}
        }
    }
    answer
}

fn type_of(definition: &TypeDefinition<'static, String>, kinds: &Kinds) -> Value {
    let inputs = |all: &[InputValue<'static, String>]| -> Vec<Value> {
        all.iter()
            .map(|it| {
                let default = it.default_value.as_ref().map(ToString::to_string);
                let of = wrapped(&it.value_type, kinds);
                json!({"name": it.name, "type": of, "defaultValue": default})
            })
            .collect()
    };
    match definition {
        TypeDefinition::Object(it) => {
            let fields = it.fields.iter().map(|field| {
                json!({
                    "name": field.name,
                    "isDeprecated": false,
                    "args": inputs(&field.arguments),
                    "type": wrapped(&field.field_type, kinds),
                })
            });
            let fields: Vec<Value> = fields.collect();
            json!({"kind": "OBJECT", "name": it.name, "fields": fields, "interfaces": []})
        }
        TypeDefinition::InputObject(it) => {
            json!({"kind": "INPUT_OBJECT", "name": it.name, "inputFields": inputs(&it.fields)})
        }
        TypeDefinition::Scalar(it) => json!({"kind": "SCALAR", "name": it.name}),
        other => panic!("unexpected {other}"),
    }
}

fn wrapped(of: &Type<'static, String>, kinds: &Kinds) -> Value {
    match of {
        Type::NamedType(name) => json!({"kind": kinds[name], "name": name, "ofType": null}),
        Type::ListType(of) => json!({"kind": "LIST", "name": null, "ofType": wrapped(of, kinds)}),
        Type::NonNullType(of) => {
            json!({"kind": "NON_NULL", "name": null, "ofType": wrapped(of, kinds)})
        }
    }
}
