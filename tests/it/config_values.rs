//! Values of variables that nobody means, and what is said about them.

use hookyard::config::Config;

/// Reads a usable configuration in which one variable has another value.
fn read(name: &str, value: &str) -> Result<Config, String> {
    Config::from_lookup(&|asked| match asked {
        _ if asked == name => Some(value.to_owned()),
        "PUSH_AUDIENCE" | "HASURA_ADMIN_SECRET" | "CHARGEBEE_API_KEY" => Some("x".to_owned()),
        "PUSH_SERVICE_ACCOUNT" => Some("x@example.com".to_owned()),
        "HASURA_GRAPHQL_URL" => Some("http://localhost/v1/graphql".to_owned()),
        "CHARGEBEE_SITE" => Some("acme".to_owned()),
        "EVENT_BUS_TYPE" => Some("memory".to_owned()),
        _ => None,
    })
    .map_err(|error| error.to_string())
}

#[test]
fn a_log_level_that_does_not_exist_is_refused_instead_of_silencing_the_service() {
    for bad in ["warning", "verbose", "info,loud", "debug=hookyard"] {
        let error = read("LOG_LEVEL", bad).unwrap_err();
        assert!(error.contains("LOG_LEVEL: must be"), "{bad}: {error}");
    }
    for good in [
        "info",
        "WARN",
        "off",
        "hookyard=debug",
        "info,hookyard::clients=debug,h2=trace",
    ] {
        assert!(read("LOG_LEVEL", good).is_ok(), "{good}");
    }
}

#[test]
fn a_time_beyond_reason_is_refused_instead_of_ending_in_a_panic() {
    for value in ["99999999999999", "18446744073709551615"] {
        let error = read("DEDUPE_TTL_SECONDS", value).unwrap_err();
        assert!(
            error.contains("DEDUPE_TTL_SECONDS: must be at most"),
            "{error}"
        );
    }
    assert!(read("DEDUPE_TTL_SECONDS", "31536000").is_ok());
}

#[test]
fn trap_9_a_handler_may_not_outlast_the_ack_deadline() {
    for value in ["60000", "600000"] {
        let error = read("HANDLER_TIMEOUT_MS", value).unwrap_err();
        assert!(error.contains("below ACK_DEADLINE_MS"), "{error}");
    }
    assert!(read("HANDLER_TIMEOUT_MS", "59999").is_ok());
    assert!(read("ACK_DEADLINE_MS", "600001").is_err());
}

#[test]
fn a_value_that_is_no_text_is_refused_instead_of_passing_for_one_not_set() {
    // As `from_env` hands over bytes that are not UTF-8.
    for name in [
        "PUSH_SERVICE_ACCOUNT",
        "PUSH_AUTH_MODE",
        "HASURA_ADMIN_SECRET",
        "PORT",
    ] {
        let error = read(name, "platform\u{FFFD}").unwrap_err();
        assert_eq!(error.matches("is not UTF-8 text").count(), 1, "{error}");
        assert!(!error.contains("platform\u{FFFD}"), "{error}");
    }
}
