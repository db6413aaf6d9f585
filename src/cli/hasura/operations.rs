//! Checks that GraphQL operations still fit a schema: fields, arguments, variables and their types.

use std::collections::{BTreeSet, HashMap};

use graphql_parser::Pos;
use graphql_parser::query::{
    self, Definition, Field, FragmentDefinition, OperationDefinition, Selection, SelectionSet,
    TypeCondition, VariableDefinition,
};
use graphql_parser::schema::{self, InputValue, TypeDefinition};

use super::values;

/// A type as it is written: `[uuid!]!`.
pub(super) type Type = schema::Type<'static, String>;
pub(super) type Value = query::Value<'static, String>;
type Variables = HashMap<String, VariableDefinition<'static, String>>;

/// A schema, by name of its types.
pub(super) struct Schema {
    types: HashMap<String, TypeDefinition<'static, String>>,
    roots: [Option<String>; 3],
}

/// What is wrong with a file of operations.
pub(super) struct Complaint {
    pub(super) line: usize,
    pub(super) what: String,
}

impl Schema {
    /// Reads a schema in GraphQL's own language.
    ///
    /// # Errors
    /// When it is not one; in the parser's words.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let document = schema::parse_schema::<String>(text)
            .map_err(|error| error.to_string())?
            .into_static();
        let mut types = HashMap::new();
        let mut roots = ["Query", "Mutation", "Subscription"].map(|name| Some(name.to_owned()));
        for definition in document.definitions {
            match definition {
                schema::Definition::SchemaDefinition(told) => {
                    roots = [told.query, told.mutation, told.subscription];
                }
                schema::Definition::TypeDefinition(definition) => {
                    types.insert(name_of(&definition).to_owned(), definition);
                }
                schema::Definition::TypeExtension(_)
                | schema::Definition::DirectiveDefinition(_) => {}
            }
        }
        for name in ["Int", "Float", "String", "Boolean", "ID"] {
            let scalar = schema::ScalarType::new(name.to_owned());
            types.insert(name.to_owned(), TypeDefinition::Scalar(scalar));
        }
        Ok(Self { types, roots })
    }

    pub(super) fn get(&self, name: &str) -> Option<&TypeDefinition<'static, String>> {
        self.types.get(name)
    }

    /// Checks a file of operations.
    ///
    /// # Errors
    /// When it is no GraphQL; in the parser's words.
    pub(super) fn check(&self, text: &str) -> Result<Vec<Complaint>, String> {
        let document = query::parse_query::<String>(text)
            .map_err(|error| error.to_string())?
            .into_static();
        let fragments: HashMap<&str, &FragmentDefinition<'static, String>> = document
            .definitions
            .iter()
            .filter_map(|definition| match definition {
                Definition::Fragment(fragment) => Some((fragment.name.as_str(), fragment)),
                Definition::Operation(_) => None,
            })
            .collect();
        let mut complaints = Vec::new();
        for definition in &document.definitions {
            if let Definition::Operation(operation) = definition {
                let mut check = Check {
                    schema: self,
                    fragments: &fragments,
                    variables: HashMap::new(),
                    used: BTreeSet::new(),
                    open: Vec::new(),
                    complaints: &mut complaints,
                };
                check.operation(operation);
            }
        }
        Ok(complaints)
    }
}

fn name_of<'a>(definition: &'a TypeDefinition<'static, String>) -> &'a str {
    match definition {
        TypeDefinition::Scalar(t) => &t.name,
        TypeDefinition::Object(t) => &t.name,
        TypeDefinition::Interface(t) => &t.name,
        TypeDefinition::Union(t) => &t.name,
        TypeDefinition::Enum(t) => &t.name,
        TypeDefinition::InputObject(t) => &t.name,
    }
}

/// Returns the name of a type without its brackets and marks.
pub(super) fn innermost(kind: &Type) -> &str {
    match kind {
        schema::Type::NamedType(name) => name,
        schema::Type::ListType(inner) | schema::Type::NonNullType(inner) => innermost(inner),
    }
}

/// The check of one operation.
pub(super) struct Check<'a> {
    pub(super) schema: &'a Schema,
    fragments: &'a HashMap<&'a str, &'a FragmentDefinition<'static, String>>,
    pub(super) variables: Variables,
    pub(super) used: BTreeSet<String>,
    /// Fragments that are being looked into; one within itself would never end.
    open: Vec<String>,
    complaints: &'a mut Vec<Complaint>,
}

impl Check<'_> {
    pub(super) fn complain(&mut self, at: Pos, what: String) {
        self.complaints.push(Complaint {
            line: at.line,
            what,
        });
    }

    fn operation(&mut self, operation: &OperationDefinition<'static, String>) {
        let (root, variables, selection) = match operation {
            OperationDefinition::Query(q) => (0, &q.variable_definitions[..], &q.selection_set),
            OperationDefinition::Mutation(m) => (1, &m.variable_definitions[..], &m.selection_set),
            OperationDefinition::Subscription(s) => {
                (2, &s.variable_definitions[..], &s.selection_set)
            }
            OperationDefinition::SelectionSet(selection) => (0, &[][..], selection),
        };
        for variable in variables {
            let kind = innermost(&variable.var_type);
            let input = matches!(
                self.schema.get(kind),
                Some(
                    TypeDefinition::Scalar(_)
                        | TypeDefinition::Enum(_)
                        | TypeDefinition::InputObject(_)
                )
            );
            if !input {
                let name = &variable.name;
                self.complain(
                    variable.position,
                    format!("${name}: no input type `{kind}`"),
                );
            }
            self.variables
                .insert(variable.name.clone(), variable.clone());
        }
        let root_type = self.schema.roots[root].clone();
        let Some(root_type) = root_type.filter(|name| self.schema.get(name).is_some()) else {
            let word = ["queries", "mutations", "subscriptions"][root];
            self.complain(selection.span.0, format!("the schema has no {word}"));
            return;
        };
        self.selection(selection, &root_type);
        for variable in variables {
            if !self.used.contains(&variable.name) {
                self.complain(variable.position, format!("${} is not used", variable.name));
            }
        }
    }

    fn selection(&mut self, selection: &SelectionSet<'static, String>, on: &str) {
        for item in &selection.items {
            match item {
                Selection::Field(field) => self.field(field, on),
                Selection::InlineFragment(inline) => {
                    let on = match &inline.type_condition {
                        Some(TypeCondition::On(name)) => name,
                        None => on,
                    };
                    self.fragment(inline.position, &inline.selection_set, on);
                }
                Selection::FragmentSpread(spread) => {
                    let name = &spread.fragment_name;
                    let Some(&fragment) = self.fragments.get(name.as_str()) else {
                        self.complain(spread.position, format!("no fragment `{name}`"));
                        continue;
                    };
                    if self.open.contains(name) {
                        self.complain(spread.position, format!("`{name}` is within itself"));
                        continue;
                    }
                    let TypeCondition::On(on) = &fragment.type_condition;
                    self.open.push(name.clone());
                    self.fragment(fragment.position, &fragment.selection_set, on);
                    self.open.pop();
                }
            }
        }
    }

    fn fragment(&mut self, at: Pos, selection: &SelectionSet<'static, String>, on: &str) {
        if self.schema.get(on).is_some() {
            self.selection(selection, on);
        } else {
            self.complain(at, format!("no type `{on}`"));
        }
    }

    fn field(&mut self, field: &Field<'static, String>, on: &str) {
        let name = &field.name;
        if name == "__typename" {
            return;
        }
        let fields = match self.schema.get(on) {
            Some(TypeDefinition::Object(object)) => &object.fields[..],
            Some(TypeDefinition::Interface(interface)) => &interface.fields[..],
            _ => &[],
        };
        let Some(known) = fields.iter().find(|known| known.name == *name) else {
            self.complain(field.position, format!("`{on}` has no field `{name}`"));
            return;
        };
        let given = field.arguments.iter().map(|(name, value)| (name, value));
        let place = format!("{on}.{name}");
        self.arguments(field.position, &place, given.collect(), &known.arguments);
        let kind = innermost(&known.field_type);
        let leaf = matches!(
            self.schema.get(kind),
            Some(TypeDefinition::Scalar(_) | TypeDefinition::Enum(_))
        );
        match (leaf, field.selection_set.items.is_empty()) {
            (true, true) => {}
            (false, false) => self.selection(&field.selection_set, kind),
            (true, false) => {
                self.complain(
                    field.position,
                    format!("`{place}` is a {kind}, without fields"),
                );
            }
            (false, true) => {
                self.complain(
                    field.position,
                    format!("`{place}` is a {kind}; select its fields"),
                );
            }
        }
    }

    /// Checks what is given to a field or an input object.
    pub(super) fn arguments(
        &mut self,
        at: Pos,
        place: &str,
        given: Vec<(&String, &Value)>,
        known: &[InputValue<'static, String>],
    ) {
        for (name, value) in &given {
            match known.iter().find(|known| known.name == **name) {
                Some(known) => values::check(self, at, &format!("{place}.{name}"), value, known),
                None => self.complain(at, format!("`{place}` takes no `{name}`")),
            }
        }
        for known in known {
            let required = matches!(known.value_type, schema::Type::NonNullType(_));
            let missing = !given.iter().any(|(name, _)| **name == known.name);
            if required && missing && known.default_value.is_none() {
                self.complain(at, format!("`{place}` needs `{}`", known.name));
            }
        }
    }
}
