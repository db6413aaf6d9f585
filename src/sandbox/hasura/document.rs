//! Reads as much of a GraphQL document as the stand-in needs: one operation's first root field,
//! its arguments with variables filled in, and the columns it selects.

use serde_json::{Map, Value};

/// The first field of an operation.
#[derive(Debug, PartialEq)]
pub(super) struct Field {
    /// `query` or `mutation`.
    pub(super) operation: String,
    /// The field's name.
    pub(super) name: String,
    /// Its arguments as one object.
    pub(super) arguments: Value,
    /// Names of the selected columns.
    pub(super) selection: Vec<String>,
}

/// Finds the operation `name` (the only one, when `None`) and reads its first root field.
pub(super) fn root_field(query: &str, name: Option<&str>, variables: &Value) -> Option<Field> {
    let tokens = tokens(query)?;
    let mut reader = Reader {
        tokens: &tokens,
        at: 0,
        variables,
    };
    loop {
        let operation = match reader.peek()? {
            "{" => "query".to_owned(),
            word => {
                let word = word.to_owned();
                reader.at += 1;
                word
            }
        };
        let mut found = None;
        if reader.peek()? != "{" {
            if reader.peek()? != "(" {
                found = Some(reader.take()?.to_owned());
            }
            if reader.peek()? == "(" {
                reader.skip_group()?;
            }
        }
        if name.is_none() || name == found.as_deref() {
            return reader.field(operation);
        }
        while reader.peek()? != "{" {
            reader.at += 1; // a fragment's `on contracts`
        }
        reader.skip_group()?;
    }
}

/// Splits into names, numbers, strings (with their quotes), `$name` and punctuation.
fn tokens(query: &str) -> Option<Vec<String>> {
    let mut tokens = Vec::new();
    let mut chars = query.chars().peekable();
    while let Some(first) = chars.next() {
        let mut token = String::from(first);
        match first {
            '#' => {
                while chars.next_if(|&c| c != '\n').is_some() {}
                continue;
            }
            c if c.is_whitespace() || c == ',' => continue,
            '"' => loop {
                let c = chars.next()?;
                token.push(c);
                match c {
                    '\\' => token.push(chars.next()?),
                    '"' => break,
                    _ => {}
                }
            },
            '{' | '}' | '(' | ')' | '[' | ']' | ':' | '!' | '=' | '|' | '&' | '@' => {}
            _ => {
                let more = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '.' | '+' | '-');
                while let Some(c) = chars.next_if(more) {
                    token.push(c);
                }
            }
        }
        tokens.push(token);
    }
    Some(tokens)
}

struct Reader<'a> {
    tokens: &'a [String],
    at: usize,
    variables: &'a Value,
}

impl Reader<'_> {
    fn peek(&self) -> Option<&str> {
        self.tokens.get(self.at).map(String::as_str)
    }

    fn take(&mut self) -> Option<&str> {
        self.at += 1;
        self.tokens.get(self.at - 1).map(String::as_str)
    }

    fn expect(&mut self, token: &str) -> Option<()> {
        (self.take()? == token).then_some(())
    }

    /// Goes past a group in parentheses or braces.
    fn skip_group(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.take()? {
                "(" | "{" => depth += 1,
                ")" | "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(());
            }
        }
    }

    fn field(&mut self, operation: String) -> Option<Field> {
        self.expect("{")?;
        let name = self.take()?.to_owned();
        let arguments = match self.peek()? {
            "(" => self.object("(", ")")?,
            _ => Value::Object(Map::new()),
        };
        let mut selection = Vec::new();
        if self.peek()? == "{" {
            self.at += 1;
            while self.peek()? != "}" {
                selection.push(self.take()?.to_owned());
            }
        }
        Some(Field {
            operation,
            name,
            arguments,
            selection,
        })
    }

    fn object(&mut self, open: &str, close: &str) -> Option<Value> {
        self.expect(open)?;
        let mut members = Map::new();
        while self.peek()? != close {
            let name = self.take()?.to_owned();
            self.expect(":")?;
            let value = self.value()?;
            members.insert(name, value);
        }
        self.at += 1;
        Some(Value::Object(members))
    }

    fn value(&mut self) -> Option<Value> {
        match self.peek()? {
            "{" => self.object("{", "}"),
            "[" => {
                self.at += 1;
                let mut items = Vec::new();
                while self.peek()? != "]" {
                    items.push(self.value()?);
                }
                self.at += 1;
                Some(Value::Array(items))
            }
            _ => {
                let variables = self.variables;
                let token = self.take()?;
                Some(match token.strip_prefix('$') {
                    Some(name) => variables.get(name).cloned().unwrap_or_default(),
                    // An enum's value is a bare word.
                    None => serde_json::from_str(token).unwrap_or_else(|_| token.into()),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_stand_in_arguments_at_any_depth() {
        let query = "mutation Link($id: uuid!, $sub: String!) {\n  update_contracts_by_pk(pk_columns: \
                     { id: $id }, _set: { chargebee_subscription_id: $sub, n: 3 }) { id status }\n}";

        let field = root_field(query, Some("Link"), &json!({"id": "c1", "sub": "s1"})).unwrap();

        assert_eq!(field.operation, "mutation");
        assert_eq!(field.name, "update_contracts_by_pk");
        assert_eq!(
            field.arguments,
            json!({"pk_columns": {"id": "c1"}, "_set": {"chargebee_subscription_id": "s1", "n": 3}})
        );
        assert_eq!(field.selection, ["id", "status"]);
    }

    #[test]
    fn the_named_operation_of_several_is_read() {
        let query = "query A { __typename } # first\nquery B($id: uuid!) { contracts_by_pk(id: $id) { id } }";

        let field = root_field(query, Some("B"), &json!({"id": "c1"})).unwrap();

        assert_eq!(field.name, "contracts_by_pk");
        assert_eq!(
            root_field("{ __typename }", None, &Value::Null)
                .unwrap()
                .name,
            "__typename"
        );
        assert_eq!(root_field("{ __typename", Some("C"), &Value::Null), None);
    }
}
