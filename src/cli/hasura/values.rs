//! Checks that a value in an operation fits the type it is given for.

use graphql_parser::Pos;
use graphql_parser::query::Value as AnyValue;
use graphql_parser::schema::{self, InputValue, TypeDefinition};

use super::operations::{Check, Type, Value};

/// Checks one value.
pub(super) fn check(
    check: &mut Check<'_>,
    at: Pos,
    place: &str,
    value: &Value,
    known: &InputValue<'static, String>,
) {
    let has_default = known.default_value.is_some();
    fits(check, at, place, value, &known.value_type, has_default);
}

fn fits(
    check: &mut Check<'_>,
    at: Pos,
    place: &str,
    value: &Value,
    kind: &Type,
    has_default: bool,
) {
    match (value, kind) {
        (AnyValue::Variable(name), _) => variable(check, at, place, name, kind, has_default),
        (AnyValue::Null, schema::Type::NonNullType(_)) => {
            check.complain(at, format!("`{place}` must not be null"));
        }
        (AnyValue::Null, _) => {}
        (_, schema::Type::NonNullType(inner)) => fits(check, at, place, value, inner, false),
        (AnyValue::List(items), schema::Type::ListType(inner)) => {
            for item in items {
                fits(check, at, place, item, inner, false);
            }
        }
        // One value stands for a list of one.
        (_, schema::Type::ListType(inner)) => fits(check, at, place, value, inner, false),
        (_, schema::Type::NamedType(name)) => named(check, at, place, value, name),
    }
}

/// A variable fits where its type is the same or stricter; see "All Variable Usages Are Allowed"
/// in the specification.
fn variable(
    check: &mut Check<'_>,
    at: Pos,
    place: &str,
    name: &str,
    kind: &Type,
    has_default: bool,
) {
    check.used.insert(name.to_owned());
    let Some(variable) = check.variables.get(name) else {
        check.complain(at, format!("${name} is not declared"));
        return;
    };
    let own_default = variable
        .default_value
        .as_ref()
        .is_some_and(|value| !matches!(value, AnyValue::Null));
    let declared = &variable.var_type;
    let allowed = match kind {
        schema::Type::NonNullType(inner) if own_default || has_default => {
            is_within(declared, inner)
        }
        kind => is_within(declared, kind),
    };
    if !allowed {
        let what = format!("${name} is a {declared}, but `{place}` takes a {kind}");
        check.complain(at, what);
    }
}

fn is_within(declared: &Type, wanted: &Type) -> bool {
    use schema::Type::{ListType, NamedType, NonNullType};
    match (declared, wanted) {
        (NonNullType(declared), NonNullType(wanted)) => is_within(declared, wanted),
        (_, NonNullType(_)) => false,
        (NonNullType(declared), wanted) => is_within(declared, wanted),
        (ListType(declared), ListType(wanted)) => is_within(declared, wanted),
        (NamedType(declared), NamedType(wanted)) => declared == wanted,
        (ListType(_), NamedType(_)) | (NamedType(_), ListType(_)) => false,
    }
}

fn named(check: &mut Check<'_>, at: Pos, place: &str, value: &Value, name: &str) {
    let fits = match (check.schema.get(name), value) {
        (Some(TypeDefinition::InputObject(input)), AnyValue::Object(members)) => {
            let fields = input.fields.clone();
            let given = members.iter().collect();
            check.arguments(at, name, given, &fields);
            true
        }
        (Some(TypeDefinition::Enum(known)), AnyValue::Enum(word)) => {
            known.values.iter().any(|value| value.name == *word)
        }
        (Some(TypeDefinition::Scalar(_)), value) => match (name, value) {
            ("Int", AnyValue::Int(_))
            | ("Float", AnyValue::Int(_) | AnyValue::Float(_))
            | ("String", AnyValue::String(_))
            | ("Boolean", AnyValue::Boolean(_))
            | ("ID", AnyValue::String(_) | AnyValue::Int(_)) => true,
            ("Int" | "Float" | "String" | "Boolean" | "ID", _) => false,
            // What a scalar of Hasura's own takes is the database's business.
            (_, AnyValue::Enum(_)) => false,
            _ => true,
        },
        _ => false,
    };
    if !fits {
        check.complain(at, format!("`{place}` takes a {name}"));
    }
}
