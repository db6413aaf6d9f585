//! S1 and I6: words planted in every place an outsider can write to, or that is secret, and then
//! looked for in everything the service says about itself.

use std::io::Write;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookyard::config::{LogConfig, LogFormat};
use hookyard::sandbox::{ADMIN_TOKEN, AUDIENCE, Fault, HOUR, Reply, SERVICE_ACCOUNT};
use hookyard::telemetry::Logs;
use serde_json::{Value, json};

use crate::support::{Answer, Behaviour, Probe, TestApp, event, probe_event};

/// In every planted word, so that one search finds them all.
const CANARY: &str = "canary";

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A row whose every value is a canary, but for the ids the service has to work with.
fn contract(id: &str, status: &str, more: &str) -> String {
    format!(
        r#"{{"id":"{id}-contract","subscription_id":"{id}-sub","status":"{status}","amount_cents":29700,"notes":"canary-notes","ssn":"canary-078-05-1120"{more}}}"#
    )
}

fn activation(id: &str) -> String {
    let (old, new) = (contract(id, "signed", ""), contract(id, "active", ""));
    with_session(&event(id, "contracts", "UPDATE", &old, &new))
}

fn with_session(event: &str) -> String {
    event.replace(
        r#"{"x-hasura-role":"user"}"#,
        r#"{"x-hasura-role":"canary-role","x-hasura-user-id":"canary-user"}"#,
    )
}

fn customer(id: &str, op: &str) -> String {
    let row = r#"{"id":"cus-1","email":"canary@example.com","first_name":"canary-first","last_name":"canary-last"}"#;
    let (old, new) = if op == "DELETE" {
        (row, "null")
    } else {
        ("null", row)
    };
    with_session(&event(id, "customers", op, old, new))
}

/// Everything the service said, by where it said it.
#[derive(Default)]
struct Said(Vec<(String, String)>);

impl Said {
    fn answer(&mut self, to: &str, answer: &Answer) {
        self.0.push((
            format!("answer to {to}"),
            format!("{:?} {}", answer.headers, answer.text()),
        ));
    }

    fn holds(&self, word: &str) -> Vec<&(String, String)> {
        self.0
            .iter()
            .filter(|(_, text)| text.to_lowercase().contains(word))
            .collect()
    }
}

/// Answers of upstreams that quote what they were sent, and more.
fn faults() -> Vec<Fault> {
    let error = |status: u16, code: &str| {
        let body = json!({
            "message": "canary-message about canary@example.com",
            "type": "canary-type",
            "api_error_code": code,
            "param": "canary-param",
            "error_cause_id": "canary-cause",
        });
        Fault::Answer(Reply::json(status, &body))
    };
    let graphql = |code: Value| {
        let internal = json!({"statement": "canary-statement", "arguments": ["canary-argument"]});
        let extensions = json!({"code": code, "path": "$.canary", "internal": internal});
        let errors = json!([{"message": "canary-message", "extensions": extensions}]);
        Fault::Answer(Reply::json(200, &json!({"errors": errors})))
    };
    let redirect =
        Reply::text(302, "canary").with("location", "http://127.0.0.1:1/?key=canary-location");
    vec![
        error(400, "param_wrong_value"),
        error(422, "canary-code@example.com"),
        error(429, "Canary code"),
        error(500, "internal_error"),
        Fault::Answer(Reply::text(502, "<html>canary</html>")),
        Fault::nonsense("canary"),
        Fault::nonsense(r#"{"subscription":{"id":"canary","status":7,"object":"canary"}}"#),
        graphql(json!("constraint-violation")),
        graphql(json!("canary-Code of canary@example.com")),
        graphql(Value::Null),
        Fault::Answer(redirect),
        Fault::ResetBefore,
        Fault::CutShort,
    ]
}

/// Bodies with a good token that hold no event, or one that does not fit.
fn bad_bodies() -> Vec<Vec<u8>> {
    let wrap = |data: &[u8]| {
        let data = STANDARD.encode(data);
        json!({
            "message": {"data": data, "messageId": "m-1", "attributes": {"canary-name": "canary-value"}},
            "subscription": "projects/p/subscriptions/canary-subscription",
        })
        .to_string()
        .into_bytes()
    };
    let misfits = [
        contract("bad", "active", "").replace("\"status\":\"active\"", "\"status\":{\"canary\":1}"),
        contract("bad", "active", "").replace("\"bad-sub\"", "[\"canary\"]"),
        contract("bad", "active", "").replace("29700", "\"canary-amount\""),
    ];
    let misfits = misfits.iter().enumerate().map(|(i, row)| {
        let old = contract("bad", "signed", "");
        wrap(event(&format!("misfit-{i}"), "contracts", "UPDATE", &old, row).as_bytes())
    });
    let mut bodies: Vec<Vec<u8>> = misfits.collect();
    bodies.extend([
        b"canary".to_vec(),
        br#"{"message":"canary"}"#.to_vec(),
        br#"{"message":{"data":"canary!not!base64","messageId":"m"}}"#.to_vec(),
        wrap(b"canary is no JSON"),
        wrap(br#"{"id":"canary","event":{"op":"canary"}}"#),
        wrap(br#"{"canary":"#),
        wrap("{\"id\":\"e\",\"canary\":\"\u{1b}[2J\r\ncanary\"}".as_bytes()),
    ]);
    bodies
}

/// Tokens that are refused, each with a canary in it that would show if its parts were quoted.
fn bad_tokens(app: &TestApp) -> Vec<String> {
    let issuer = app.sandbox.issuer();
    let good = issuer.token(AUDIENCE, SERVICE_ACCOUNT, HOUR);
    let parts: Vec<&str> = good.split('.').collect();
    let mut hostile = issuer.claims("https://canary.example", "canary@example.com", HOUR);
    hostile["sub"] = json!("canary-sub");
    let header =
        json!({"alg": "RS256", "kid": "canary\r\nkid", "jku": "http://127.0.0.1:1/canary"});
    vec![
        issuer.sign(&hostile),
        issuer.sign_with_header(&header, &hostile),
        issuer.token(AUDIENCE, "canary@example.com", HOUR),
        format!("{}.{}.Y2FuYXJ5", parts[0], parts[1]),
        "canary.canary.canary".to_owned(),
    ]
}

#[tokio::test]
async fn s1_nothing_an_outsider_wrote_and_no_secret_is_ever_told() {
    let kept = Kept::default();
    let config = LogConfig {
        level: "trace".to_owned(),
        format: LogFormat::Json,
        colour: false,
        service: "hookyard".to_owned(),
        revision: "r-1".to_owned(),
    };
    let (dispatch, guard) = Logs::new(&config, None).to(kept.clone()).build().unwrap();
    let _logging = tracing::dispatcher::set_default(&dispatch);
    let probe = Probe::that([
        Behaviour::Panic,
        Behaviour::FailForGood,
        Behaviour::FailTransiently,
    ]);
    let app = TestApp::builder()
        .manual_clock()
        .handler(probe)
        .start()
        .await;
    let mut said = Said::default();
    let mut tokens = vec![app.sandbox.token()];

    for event in [
        activation("good"),
        activation("good"),
        customer("insert", "INSERT"),
        customer("delete", "DELETE"),
        with_session(&event(
            "unrouted",
            "canaries",
            "INSERT",
            "null",
            r#"{"a":"canary"}"#,
        )),
        probe_event("panics"),
        probe_event("refuses"),
        probe_event("is-busy"),
    ] {
        let attributes = [("canary-attribute".to_owned(), "canary-value".to_owned())];
        said.answer(
            "an event",
            &app.push_message(event.as_bytes(), &attributes).await,
        );
    }
    for (i, fault) in faults().into_iter().enumerate() {
        for upstream in ["chargebee", "hasura"] {
            let faults = match upstream {
                "chargebee" => app.sandbox.chargebee().faults(),
                _ => app.sandbox.hasura().faults(),
            };
            faults.next_n(8, &fault);
            let id = format!("{upstream}-{i}");
            said.answer(&id, &app.push(&activation(&id)).await);
            faults.stop();
            app.clock().advance(std::time::Duration::from_secs(600)); // breakers close
        }
    }
    for body in bad_bodies() {
        said.answer("a bad body", &app.post(body).await);
    }
    for token in bad_tokens(&app) {
        said.answer("a bad token", &app.push_with_token(&token).await);
        tokens.push(token);
    }
    for path in [
        "/canary?canary=canary",
        "/handlers/canary",
        "/metrics",
        "/handlers",
        "/ready",
    ] {
        said.answer("a path", &app.get(path).await);
    }
    let dead_letters = app.dead_letters();
    for dead in &dead_letters {
        // Its bytes and its own attributes are kept as they were; what we add must be clean.
        let ours = dead
            .attributes
            .iter()
            .filter(|(name, _)| name.starts_with("hookyard-"));
        let unrelated = ours.filter(|(name, _)| name != "hookyard-event-type");
        said.0.push((
            "a dead letter".to_owned(),
            format!("{:?}", unrelated.collect::<Vec<_>>()),
        ));
    }
    let variables = app.sandbox.variables().clone();
    app.running.shutdown().await;
    drop(guard);

    let logs = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
    for line in logs.lines() {
        serde_json::from_str::<Value>(line).unwrap();
        said.0.push(("a log line".to_owned(), line.to_owned()));
    }
    // Not vacuous: every way to end was taken and told.
    assert!(dead_letters.len() >= 10, "{}", dead_letters.len());
    for told in [
        "event processed",
        "event was processed before",
        "event dead-lettered",
        "event handed back",
        "delivery holds no event",
        "push request refused",
        "no handler takes this event type",
    ] {
        assert!(logs.contains(told), "{told}");
    }
    let found: Vec<_> = said
        .holds(CANARY)
        .into_iter()
        .filter(|said| !is_echo(said))
        .collect();
    assert!(found.is_empty(), "{found:#?}");
    let key = variables["CHARGEBEE_API_KEY"].clone();
    let basic = STANDARD.encode(format!("{key}:"));
    for secret in [&key, &basic, &variables["HASURA_ADMIN_SECRET"]]
        .into_iter()
        .chain(&tokens)
    {
        assert!(
            said.holds(&secret.to_lowercase()).is_empty(),
            "a secret was told"
        );
    }
    assert!(!logs.contains(&format!("Bearer {ADMIN_TOKEN}")));
}

/// Names that an event is told apart by: its type, from a table's name, and its trigger.
fn is_echo((place, text): &(String, String)) -> bool {
    let named = text
        .replace("canaries.insert", "")
        .replace("canaries_events", "");
    (place == "a log line" || place.starts_with("answer to a path"))
        && !named.to_lowercase().contains(CANARY)
}
