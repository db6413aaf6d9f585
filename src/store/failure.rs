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
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) => "connection_lost",
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
        "28P01" | "28000" => {
            return Error::Credentials {
                service: SERVICE,
                code: Code::new("login_refused"),
            };
        }
        "42P01" => "tables_missing",
        "3D000" => "no_such_database",
        // SQLite: https://www.sqlite.org/rescode.html
        "5" | "261" | "517" | "6" => "busy",
        "10" => "io_error",
        "1" if error.message().starts_with("no such table") => "tables_missing",
        other if other.len() == 5 && other.starts_with("22") => return refused("invalid_value"),
        other if other.len() == 5 && other.starts_with("23") => {
            return refused("constraint_violation");
        }
        other if other.len() == 5 && other.starts_with("57P") => "database_stopping",
        _ => "database_error",
    };
    away(code)
}

/// As [`failed`], for a handler's own statement: one the tables do not fit is refused for good, so
/// that it does not hold up the completions it is kept together with.
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
        other if other.len() == 5 && other.starts_with("42") => refused("statement_refused"),
        _ => failed(error),
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
