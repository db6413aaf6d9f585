//! What went wrong in the database, in words that hold no values of rows.

use sqlx::error::DatabaseError;

use crate::error::{Code, Error};

/// The database's name in errors and metrics.
const SERVICE: &str = "database";

/// Turns a driver's error into ours. The database's own text is dropped: it quotes rows.
pub(crate) fn failed(error: sqlx::Error) -> Error {
    let code = match &error {
        sqlx::Error::Database(error) => return judged(error.as_ref()),
        sqlx::Error::PoolTimedOut => "no_connection_free",
        sqlx::Error::PoolClosed => "shutting_down",
        sqlx::Error::Io(_) => "connection_lost",
        sqlx::Error::Tls(_) => "encryption_refused",
        sqlx::Error::RowNotFound => {
            return Error::NotFound {
                service: SERVICE,
                what: "row",
            };
        }
        _ => "driver_error",
    };
    away(code)
}

fn judged(error: &dyn DatabaseError) -> Error {
    let given = error.code().unwrap_or_default();
    let code = match given.as_ref() {
        // PostgreSQL: https://www.postgresql.org/docs/current/errcodes-appendix.html
        "23505" | "1555" | "2067" => return refused("unique_violation"),
        "23503" | "787" => return refused("foreign_key_violation"),
        "23502" | "1299" => return refused("not_null_violation"),
        "23514" | "275" => return refused("check_violation"),
        "40001" => "serialization_failure",
        "40P01" => "deadlock",
        "55P03" => "lock_timeout",
        "57014" => "statement_timeout",
        "53100" | "13" => "disk_full",
        "53300" => "too_many_connections",
        "25006" | "8" | "1032" => "read_only",
        "28P01" | "28000" => return not_for_us("login_refused"),
        "42501" => return not_for_us("not_permitted"),
        "42P01" => "tables_missing",
        // Refused by a pooler, or a prepared statement that another session has or has not.
        "08P01" | "26000" | "42P05" => "pooler_in_between",
        "3D000" => "no_such_database",
        // SQLite: https://www.sqlite.org/rescode.html
        "5" | "261" | "517" | "6" => "busy",
        "10" => "io_error",
        "14" => "file_not_opened",
        "1" if error.message().starts_with("no such table") => "tables_missing",
        other if other.len() == 5 && other.starts_with("22") => return refused("invalid_value"),
        other if other.len() == 5 && other.starts_with("23") => {
            return refused("constraint_violation");
        }
        // A value that does not fit into an index, for example.
        "18" => return refused("too_large"),
        other if other.len() == 5 && other.starts_with("54") => return refused("too_large"),
        other if other.len() == 5 && other.starts_with("57P") => "database_stopping",
        // SQLite's constraints of all kinds, triggers among them.
        other
            if other
                .parse()
                .is_ok_and(|code: u32| other.len() < 5 && code & 0xff == 19) =>
        {
            return refused("constraint_violation");
        }
        _ => "database_error",
    };
    away(code)
}

/// What another try may mend: connections, logins, locks, resources, operators, the system itself.
const PASSING: [&str; 9] = ["08", "25", "26", "28", "40", "53", "55", "57", "58"];

/// As [`failed`], for a handler's own statement: one that the tables or their owner's triggers do
/// not take is refused for good, so that it does not hold up the completions it is kept together
/// with.
pub(super) fn refused_statement(error: sqlx::Error) -> Error {
    let sqlx::Error::Database(given) = &error else {
        return failed(error);
    };
    let code = given.code().unwrap_or_default();
    match code.as_ref() {
        "42P01" => refused("tables_missing"),
        "42703" => refused("columns_missing"),
        // 1 is what SQLite has for all of them.
        "1" => refused("statement_refused"),
        "42P05" => failed(error),
        other if other.len() != 5 => failed(error),
        other if PASSING.iter().any(|class| other.starts_with(class)) => failed(error),
        other if other.starts_with("XX") => failed(error),
        _ => match failed(error) {
            named @ Error::Rejected { .. } => named,
            _ => refused("statement_refused"),
        },
    }
}

/// Says what can be done about a code, for the person who reads it.
pub(crate) fn advice(code: &str) -> Option<&'static str> {
    Some(match code {
        "tables_missing" | "tables_outdated" => "run `hookyard migrate`",
        "connection_lost" | "no_connection_free" | "no_answer" => {
            "is the database of DATABASE_URL running, and can it be reached from here? Special \
             characters in its password are written as %40, %2F, …"
        }
        "too_many_connections" => {
            "DATABASE_MAX_CONNECTIONS times the instances has to stay below its max_connections"
        }
        "encryption_refused" => "sslmode in DATABASE_URL asks for what the server does not offer",
        "login_refused" => "user or password in DATABASE_URL is wrong",
        "pooler_in_between" => {
            "connect to PostgreSQL itself, or through a pooler in session mode that passes the \
             startup parameter `options` on: settings and prepared statements of a session have \
             to stay its own"
        }
        "not_permitted" => {
            "the user in DATABASE_URL lacks a right: to use the tables, or, for `hookyard \
             migrate`, CREATE on the schema and to own `events` and `event_dead_letters`"
        }
        "no_such_database" => "DATABASE_URL names a database that does not exist",
        "file_not_opened" => {
            "the folder of the file in DATABASE_URL has to be there and to be writable"
        }
        "statement_timeout" => "narrow the question, or raise DATABASE_STATEMENT_TIMEOUT_MS",
        "read_only" => "DATABASE_URL names a copy that cannot be written to",
        "tables_of_others" => "a table or column of this name is there already, of another kind",
        "lock_timeout" => "somebody has a table in use; try again when they have ended",
        "migration_was_changed" => {
            "the database was migrated by a program that was built otherwise"
        }
        _ => return None,
    })
}

/// It answers, and does not let us.
fn not_for_us(code: &'static str) -> Error {
    Error::Credentials {
        service: SERVICE,
        code: Code::new(code),
    }
}

/// It may answer next time.
pub(crate) fn away(code: &'static str) -> Error {
    Error::Unavailable {
        service: SERVICE,
        code: Code::new(code),
        retry_after: None,
        source: None,
    }
}

fn refused(code: &'static str) -> Error {
    Error::Rejected {
        service: SERVICE,
        code: Code::new(code),
    }
}
