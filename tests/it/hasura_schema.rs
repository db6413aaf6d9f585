//! `hookyard hasura schema` and `operations`: the schema by introspection, and what still fits it.

use std::fs;

use graphql_parser::schema::{Definition, Field, InputValue, Type, TypeDefinition, parse_schema};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::hasura_stand_in::{StandIn, run};

/// Answers an introspection of a schema.
pub(crate) fn introspection(schema: &str) -> Value {
    let document = parse_schema::<String>(schema).unwrap();
    let mut kinds = std::collections::HashMap::new();
    for definition in &document.definitions {
        if let Definition::TypeDefinition(definition) = definition {
            let (name, kind) = match definition {
                TypeDefinition::Scalar(t) => (&t.name, "SCALAR"),
                TypeDefinition::Object(t) => (&t.name, "OBJECT"),
                TypeDefinition::Interface(t) => (&t.name, "INTERFACE"),
                TypeDefinition::Union(t) => (&t.name, "UNION"),
                TypeDefinition::Enum(t) => (&t.name, "ENUM"),
                TypeDefinition::InputObject(t) => (&t.name, "INPUT_OBJECT"),
            };
            kinds.insert(name.clone(), kind);
        }
    }
    let kind_of = |name: &str| *kinds.get(name).unwrap_or(&"SCALAR");
    fn reference(kind: &Type<'_, String>, kind_of: &dyn Fn(&str) -> &'static str) -> Value {
        match kind {
            Type::NamedType(name) => json!({"kind": kind_of(name), "name": name, "ofType": null}),
            Type::ListType(inner) => {
                json!({"kind": "LIST", "name": null, "ofType": reference(inner, kind_of)})
            }
            Type::NonNullType(inner) => {
                json!({"kind": "NON_NULL", "name": null, "ofType": reference(inner, kind_of)})
            }
        }
    }
    let inputs = |inputs: &[InputValue<'_, String>]| -> Vec<Value> {
        let inputs = inputs.iter().map(|input| {
            let default = input.default_value.as_ref().map(ToString::to_string);
            let kind = reference(&input.value_type, &kind_of);
            json!({"name": input.name, "defaultValue": default, "type": kind})
        });
        inputs.collect()
    };
    let fields = |fields: &[Field<'_, String>]| -> Vec<Value> {
        let fields = fields.iter().map(|field| {
            json!({
                "name": field.name,
                "isDeprecated": false,
                "deprecationReason": null,
                "args": inputs(&field.arguments),
                "type": reference(&field.field_type, &kind_of),
            })
        });
        fields.collect()
    };
    let mut roots = json!({});
    let mut types = vec![json!({"kind": "SCALAR", "name": "String"})];
    for definition in &document.definitions {
        match definition {
            Definition::SchemaDefinition(schema) => {
                let named = |name: &Option<String>| name.as_ref().map(|n| json!({"name": n}));
                roots = json!({
                    "queryType": named(&schema.query),
                    "mutationType": named(&schema.mutation),
                    "subscriptionType": named(&schema.subscription),
                });
            }
            Definition::TypeDefinition(TypeDefinition::Scalar(t)) => {
                types.push(json!({"kind": "SCALAR", "name": t.name}));
            }
            Definition::TypeDefinition(TypeDefinition::Object(t)) => {
                let fields = fields(&t.fields);
                types.push(
                    json!({"kind": "OBJECT", "name": t.name, "fields": fields, "interfaces": []}),
                );
            }
            Definition::TypeDefinition(TypeDefinition::InputObject(t)) => {
                let fields = inputs(&t.fields);
                types.push(json!({"kind": "INPUT_OBJECT", "name": t.name, "inputFields": fields}));
            }
            other => panic!("not needed yet: {other}"),
        }
    }
    roots["types"] = Value::Array(types);
    json!({"__schema": roots})
}

/// Writes a folder of operations.
fn operations(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[tokio::test]
async fn the_schema_comes_back_as_it_is_and_is_written_to_a_file() {
    let hasura = StandIn::tracking(&[]).await;
    let folder = tempdir().unwrap();
    let file = folder.path().join("schema.graphql");

    let printed = hasura.run(&["hasura", "schema"]).await;
    let written = hasura
        .run(&["hasura", "schema", "--output", file.to_str().unwrap()])
        .await;

    assert_eq!((printed.code, written.code), (0, 0), "{}", printed.err);
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(printed.out, text);
    // What was written says the same as what was asked, when it is asked again.
    hasura.set_schema(&text);
    assert_eq!(hasura.run(&["hasura", "schema"]).await.out, text);
    assert!(
        text.contains("type contracts {\n  amount_cents: bigint\n"),
        "{text}"
    );
    assert!(text.contains(
        "  update_contracts_by_pk(_set: contracts_set_input, pk_columns: contracts_pk_columns_input!): contracts\n"
    ));
}

#[tokio::test]
async fn a_wrong_secret_is_told_though_graphql_says_200() {
    let hasura = StandIn::tracking(&[]).await;

    let ended = hasura.run_with(&["hasura", "schema"], "wrong").await;

    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("access-denied") && ended.err.contains("HASURA_ADMIN_SECRET"));
}

#[tokio::test]
async fn the_operations_of_this_repository_fit_its_schema() {
    let ended = run(&["hasura", "operations"], &[]).await;

    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
}

#[tokio::test]
async fn operations_that_no_longer_fit_a_live_schema_are_named() {
    let hasura = StandIn::tracking(&[]).await;
    let live = ["hasura", "operations", "--live"];
    assert_eq!(hasura.run(&live).await.code, 0);

    let schema = fs::read_to_string("graphql/schema.graphql").unwrap();
    hasura.set_schema(&schema.replace("  chargebee_subscription_id: String\n", ""));
    let ended = hasura.run(&live).await;

    assert_eq!(ended.code, 2, "{}", ended.err);
    assert!(
        ended.out.contains(
            "contract_by_id.graphql:5: `contracts` has no field `chargebee_subscription_id`"
        ),
        "{}",
        ended.out
    );
    assert!(
        ended.out.contains("link_subscription.graphql:2: `contracts_set_input` takes no `chargebee_subscription_id`"),
        "{}",
        ended.out
    );
}

#[tokio::test]
async fn a_role_that_may_not_do_everything_is_told_what() {
    let hasura = StandIn::tracking(&[]).await;

    let live = ["hasura", "operations", "--live", "--role", "reader"];
    let ended = hasura.run(&live).await;

    assert_eq!(ended.code, 2, "{}", ended.err);
    let expected = "link_subscription.graphql:1: the schema has no mutations";
    assert!(ended.out.contains(expected), "{}", ended.out);
    assert!(!ended.out.contains("contract_by_id"), "{}", ended.out);
}

#[tokio::test]
async fn everything_that_does_not_fit_is_found() {
    let schema = "schema { query: q mutation: m }
        type q { item(id: uuid!, size: size = small, tags: [String!]): item  items: [item!]! }
        type m { put(object: item_input!): item }
        type item { id: uuid!  name: String  parent: item }
        input item_input { name: String!  size: size  parts: [item_input!]  limit: Int! = 1 }
        enum size { small large }
        scalar uuid";
    let cases = [
        ("{ nothing }", "`q` has no field `nothing`"),
        ("{ item { id } }", "`q.item` needs `id`"),
        (
            "{ item(id: \"x\") }",
            "`q.item` is a item; select its fields",
        ),
        (
            "{ items { id { x } } }",
            "`item.id` is a uuid, without fields",
        ),
        ("{ items(first: 1) { id } }", "`q.items` takes no `first`"),
        ("{ item(id: null) { id } }", "`q.item.id` must not be null"),
        (
            "{ item(id: \"x\", size: huge) { id } }",
            "`q.item.size` takes a size",
        ),
        (
            "{ item(id: \"x\", tags: [1]) { id } }",
            "`q.item.tags` takes a String",
        ),
        (
            "query A($a: uuid) { item(id: $a) { id } }",
            "$a is a uuid, but `q.item.id` takes a uuid!",
        ),
        ("query A { item(id: $a) { id } }", "$a is not declared"),
        ("query A($a: uuid!) { items { id } }", "$a is not used"),
        (
            "query A($a: item!) { item(id: $a) { id } }",
            "$a: no input type `item`",
        ),
        (
            "mutation A { put(object: {}) { id } }",
            "`item_input` needs `name`",
        ),
        (
            "mutation A { put(object: {name: 1}) { id } }",
            "`item_input.name` takes a String",
        ),
        (
            "mutation A { put(object: {name: \"a\", parts: [{nme: \"b\", name: \"c\"}]}) { id } }",
            "`item_input` takes no `nme`",
        ),
        (
            "subscription A { items { id } }",
            "the schema has no subscriptions",
        ),
        (
            "{ items { ...F } } fragment F on item { nope }",
            "`item` has no field `nope`",
        ),
        ("{ items { ...F } }", "no fragment `F`"),
        (
            "{ items { ...F } } fragment F on item { parent { ...F } }",
            "`F` is within itself",
        ),
        ("{ items { ... on ghost { id } } }", "no type `ghost`"),
    ];
    for (operation, complaint) in cases {
        let folder = operations(&[("schema.graphql", schema), ("a.graphql", operation)]);
        let path = folder.path().to_str().unwrap();
        let ended = run(&["hasura", "operations", "--operations", path], &[]).await;
        assert_eq!(ended.code, 2, "{operation}\n{}{}", ended.out, ended.err);
        assert!(ended.out.contains(complaint), "{operation}\n{}", ended.out);
    }

    let good = [
        ("schema.graphql", schema),
        (
            "a.graphql",
            "query A($id: uuid!, $tag: String!) { __typename item(id: $id, tags: [$tag]) { ...F } } fragment F on item { id parent { name } }",
        ),
        (
            "b.graphql",
            "mutation B($o: item_input!, $s: size) { put(object: $o) { id } again: put(object: {name: \"x\", size: $s, parts: {name: \"y\"}, limit: 3}) { id } }",
        ),
        (
            "c.graphql",
            "query C($size: size = large, $list: [String!]!) { item(id: \"x\", size: $size, tags: $list) { id } }",
        ),
    ];
    let folder = operations(&good);
    let path = folder.path().to_str().unwrap();
    let ended = run(&["hasura", "operations", "--operations", path], &[]).await;
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
}

#[tokio::test]
async fn what_is_no_graphql_is_an_error_and_not_a_difference() {
    let schema = "type Query { a: Int }";
    for (operation, place) in [("query {", "a.graphql"), ("", "a.graphql")] {
        let folder = operations(&[("schema.graphql", schema), ("a.graphql", operation)]);
        let path = folder.path().to_str().unwrap();
        let ended = run(&["hasura", "operations", "--operations", path], &[]).await;
        assert_eq!(ended.code, 1, "{}", ended.out);
        assert!(ended.err.contains(place), "{}", ended.err);
    }
}
