//! Which triggers the handlers need, read off the registry.

use std::collections::{BTreeMap, BTreeSet};

use super::metadata::{Columns, Definition, Operation, TableName};
use crate::event::Op;
use crate::pipeline::{Registration, Registry};

/// Everything the handlers need of Hasura.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Event triggers, one per table unless handlers ask for several by name.
    pub(super) tables: Vec<WantedTrigger>,
    /// Names of cron triggers, each with its handlers.
    pub(super) crons: BTreeMap<String, BTreeSet<&'static str>>,
    /// Handlers of one-off triggers, which are no metadata: the application schedules them.
    pub(super) one_offs: BTreeSet<&'static str>,
}

/// An event trigger the handlers need.
#[derive(Debug)]
pub(super) struct WantedTrigger {
    pub(super) table: TableName,
    /// The name a handler asks for.
    pub(super) name: Option<&'static str>,
    pub(super) definition: Definition,
    pub(super) handlers: BTreeSet<&'static str>,
}

/// What one event type of a handler comes from.
#[derive(Debug, PartialEq, Eq)]
enum Origin<'a> {
    Row(TableName, Op),
    Cron(&'a str),
    OneOff,
    /// A domain event: not Hasura's.
    Message,
}

impl Wanted {
    /// Reads what every handler takes.
    pub(super) fn by(registry: &Registry) -> Self {
        let mut wanted = Self::default();
        let mut names: BTreeMap<TableName, BTreeSet<&'static str>> = BTreeMap::new();
        let mut rows: Vec<(TableName, Op, &Registration)> = Vec::new();
        for registration in registry.registrations() {
            for event in registration.events() {
                match origin(event) {
                    Origin::Row(table, op) if takes(registration, op) => {
                        let asked = names.entry(table.clone()).or_default();
                        asked.extend(registration.when().trigger_name());
                        rows.push((table, op, registration));
                    }
                    Origin::Row(..) | Origin::Message => {}
                    Origin::Cron(name) => {
                        let handlers = wanted.crons.entry(name.to_owned()).or_default();
                        handlers.insert(registration.name);
                    }
                    Origin::OneOff => {
                        wanted.one_offs.insert(registration.name);
                    }
                }
            }
        }
        let mut triggers: BTreeMap<(TableName, Option<&'static str>), WantedTrigger> =
            BTreeMap::new();
        for (table, op, registration) in rows {
            // A handler that does not mind shares the one trigger another asks for by name.
            let only = match names.get(&table) {
                Some(asked) if asked.len() == 1 => asked.first().copied(),
                _ => None,
            };
            let name = registration.when().trigger_name().or(only);
            let trigger = triggers
                .entry((table.clone(), name))
                .or_insert_with(|| WantedTrigger {
                    table,
                    name,
                    definition: Definition::default(),
                    handlers: BTreeSet::new(),
                });
            trigger.handlers.insert(registration.name);
            add(&mut trigger.definition, op, registration.when().columns());
        }
        wanted.tables = triggers.into_values().collect();
        wanted
    }
}

fn takes(registration: &Registration, op: Op) -> bool {
    registration
        .when()
        .ops()
        .is_none_or(|ops| ops.contains(&op))
}

/// Tells event types of Hasura's from others, and table names with a schema from those without.
fn origin(event: &str) -> Origin<'_> {
    if let Some(name) = event.strip_prefix("cron.") {
        return Origin::Cron(name);
    }
    if event.starts_with("scheduled.") {
        return Origin::OneOff;
    }
    let Some((table, op)) = event.rsplit_once('.') else {
        return Origin::Message;
    };
    let Some(op) = Op::parse(&op.to_ascii_uppercase()) else {
        return Origin::Message;
    };
    let (schema, table) = table.split_once('.').unwrap_or(("public", table));
    Origin::Row(TableName::new(schema, table), op)
}

/// Lets a trigger fire for one more handler. The columns a handler waits for matter on updates
/// only: an insert or a delete changes them all.
fn add(definition: &mut Definition, op: Op, columns: Option<&[&str]>) {
    let all = || {
        Some(Operation {
            columns: Columns::all(),
            payload: None,
        })
    };
    match op {
        Op::Insert => definition.insert = all(),
        Op::Delete => definition.delete = all(),
        Op::Manual => definition.enable_manual = true,
        Op::Update => {
            let before = definition.update.take().map(|operation| operation.columns);
            let columns = match (before, columns) {
                (Some(Columns::All(_)), _) | (_, None | Some([])) => Columns::all(),
                (before, Some(more)) => {
                    let mut names: BTreeSet<String> = match before {
                        Some(Columns::Some(names)) => names.into_iter().collect(),
                        _ => BTreeSet::new(),
                    };
                    names.extend(more.iter().map(|&name| name.to_owned()));
                    Columns::Some(names.into_iter().collect())
                }
            };
            definition.update = Some(Operation {
                columns,
                payload: None,
            });
        }
    }
}

/// Longest name of an event trigger (`maxTriggerNameLength` in Hasura's source).
const MAX_NAME: usize = 42;

/// Returns the name a trigger gets when nobody asks for another: `contracts_events`.
///
/// Hasura takes letters, digits, `_` and `-`, the first a letter. A name that had to be changed
/// for that ends in a hash of the whole, so that two tables never share one.
pub(super) fn default_name(table: &TableName) -> String {
    let whole = match table.schema.as_str() {
        "public" => format!("{}_events", table.name),
        schema => format!("{schema}_{}_events", table.name),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let starts_well = whole.starts_with(|c: char| c.is_ascii_alphabetic());
    if whole.len() <= MAX_NAME && whole.chars().all(plain) && starts_well {
        return whole;
    }
    let hash = xxhash_rust::xxh3::xxh3_64(whole.as_bytes()) as u32;
    let start = if starts_well { "" } else { "t_" };
    let kept: String = whole.chars().filter(|&c| plain(c)).collect();
    let room = MAX_NAME - start.len() - "_00000000".len();
    format!("{start}{}_{hash:08x}", &kept[..kept.len().min(room)])
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::error::Result;
    use crate::pipeline::{Completion, Context, Handler, Json, When};

    macro_rules! handler {
        ($type:ident, $name:literal, $events:expr, $when:expr) => {
            struct $type;
            impl Handler for $type {
                const NAME: &'static str = $name;
                const EVENTS: &'static [&'static str] = $events;
                const ABOUT: &'static str = "";
                type Payload = Json<Value>;

                fn when(&self) -> When {
                    $when
                }

                async fn handle(&self, _: &Context, _: Json<Value>) -> Result<Completion> {
                    Ok(Completion::Done)
                }
            }
        };
    }

    handler!(
        A,
        "a",
        &["orders.update", "orders.insert"],
        When::always().changed(&["state", "sum"])
    );
    handler!(
        B,
        "b",
        &["orders.update"],
        When::always().changed(&["paid"])
    );
    handler!(
        C,
        "c",
        &["orders.update", "orders.delete"],
        When::always().op(&[Op::Delete])
    );
    handler!(
        D,
        "d",
        &["billing.invoices.manual"],
        When::always().trigger("bills")
    );
    handler!(E, "e", &["billing.invoices.update"], When::always());
    handler!(
        F,
        "f",
        &["cron.nightly", "scheduled.one_off", "order.paid"],
        When::always()
    );

    #[test]
    fn triggers_fire_for_all_their_handlers_need_and_no_more() {
        let mut registry = Registry::new();
        registry.register(A).unwrap();
        registry.register(B).unwrap();
        registry.register(C).unwrap();

        let wanted = Wanted::by(&registry);

        assert_eq!(wanted.tables.len(), 1);
        let orders = &wanted.tables[0];
        assert_eq!(orders.table.to_string(), "public.orders");
        assert_eq!(
            orders.handlers.iter().copied().collect::<Vec<_>>(),
            ["a", "b", "c"]
        );
        let expected = serde_json::json!({
            "enable_manual": false,
            "insert": {"columns": "*"},
            "update": {"columns": ["paid", "state", "sum"]},
            "delete": {"columns": "*"},
        });
        assert_eq!(serde_json::to_value(&orders.definition).unwrap(), expected);
    }

    #[test]
    fn a_handler_that_waits_for_no_column_opens_all() {
        let mut registry = Registry::new();
        registry.register(D).unwrap();
        registry.register(E).unwrap();

        let wanted = Wanted::by(&registry);

        let bills = &wanted.tables[0];
        assert_eq!(bills.table.to_string(), "billing.invoices");
        assert_eq!(bills.name, Some("bills"));
        assert!(bills.definition.enable_manual);
        let update = bills.definition.update.as_ref().unwrap();
        assert_eq!(update.columns, Columns::all());
    }

    #[test]
    fn schedules_are_kept_apart_and_domain_events_left_out() {
        let mut registry = Registry::new();
        registry.register(F).unwrap();

        let wanted = Wanted::by(&registry);

        assert!(wanted.tables.is_empty());
        assert_eq!(wanted.crons.keys().collect::<Vec<_>>(), ["nightly"]);
        assert_eq!(wanted.one_offs.len(), 1);
    }

    #[test]
    fn names_are_such_that_hasura_takes_them() {
        let name = |schema: &str, table: &str| default_name(&TableName::new(schema, table));

        assert_eq!(name("public", "contracts"), "contracts_events");
        assert_eq!(name("billing", "invoices"), "billing_invoices_events");
        let long = name("public", &"x".repeat(60));
        assert_eq!(long.len(), MAX_NAME);
        assert_ne!(long, name("public", &"x".repeat(61)));
        let odd = name("public", "1 größe");
        assert!(
            odd.starts_with("t_1") && odd.is_ascii() && !odd.contains(' '),
            "{odd}"
        );
    }
}
