//! A Hasura that knows metadata and introspection, written after its documentation and source.
//!
//! `/v1/metadata`: <https://hasura.io/docs/2.0/api-reference/metadata-api/>; what it refuses is
//! what `Hasura.RQL.DDL.EventTrigger` refuses.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_util::task::TaskTracker;

use crate::hasura_schema::introspection;

pub(crate) const SECRET: &str = "hasura-admin-secret-0123456789";

/// A Hasura that listens.
pub(crate) struct StandIn {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<Inner>>,
    _tasks: TaskTracker,
}

struct Inner {
    metadata: Value,
    version: u64,
    variables: Vec<&'static str>,
    schema: String,
    commands: Vec<Value>,
    disturb: bool,
}

/// How a command of ours ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl StandIn {
    /// Starts one that tracks these tables of `public`, without any trigger.
    pub(crate) async fn tracking(tables: &[&str]) -> Self {
        let tables: Vec<Value> = tables
            .iter()
            .map(|name| json!({"table": {"schema": "public", "name": name}}))
            .collect();
        Self::with(json!({
            "version": 3,
            "sources": [{"name": "default", "kind": "postgres", "tables": tables,
                "configuration": {"connection_info": {"database_url": {"from_env": "PG"}}}}],
        }))
        .await
    }

    pub(crate) async fn with(metadata: Value) -> Self {
        let state = Arc::new(Mutex::new(Inner {
            metadata,
            version: 8,
            variables: vec!["HOOKYARD_WEBHOOK_URL", "HOOKYARD_WEBHOOK_SECRET"],
            schema: std::fs::read_to_string("graphql/schema.graphql").unwrap(),
            commands: Vec::new(),
            disturb: false,
        }));
        let router = Router::new()
            .route("/v1/metadata", post(metadata_api))
            .route("/v1/graphql", post(graphql))
            .with_state(Arc::clone(&state));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = TaskTracker::new();
        tasks.spawn(async move { axum::serve(listener, router).await });
        Self {
            address,
            state,
            _tasks: tasks,
        }
    }

    /// Runs `hookyard` with this Hasura in its environment, without a terminal.
    pub(crate) async fn run(&self, args: &[&str]) -> Ended {
        self.run_with(args, SECRET).await
    }

    pub(crate) async fn run_with(&self, args: &[&str], secret: &str) -> Ended {
        let url = format!("http://{}/v1/graphql", self.address);
        let variables = [
            ("HASURA_GRAPHQL_URL", &*url),
            ("HASURA_ADMIN_SECRET", secret),
        ];
        let ended = run(args, &variables).await;
        assert!(!ended.out.contains(SECRET) && !ended.err.contains(SECRET));
        ended
    }

    pub(crate) fn metadata(&self) -> Value {
        self.state.lock().unwrap().metadata.clone()
    }

    /// Returns the only event trigger of a table.
    pub(crate) fn trigger(&self, table: &str) -> Value {
        let metadata = self.metadata();
        let tables = metadata["sources"][0]["tables"].as_array().unwrap();
        let found = tables.iter().find(|t| t["table"]["name"] == table);
        let triggers = found.unwrap()["event_triggers"].as_array().unwrap();
        assert_eq!(triggers.len(), 1);
        triggers[0].clone()
    }

    /// Returns the commands that changed something, oldest first.
    pub(crate) fn commands(&self) -> Vec<Value> {
        self.state.lock().unwrap().commands.clone()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Value)) {
        change(&mut self.state.lock().unwrap().metadata);
    }

    pub(crate) fn forget_variable(&self, name: &str) {
        self.state
            .lock()
            .unwrap()
            .variables
            .retain(|known| *known != name);
    }

    /// Lets somebody else change the metadata after each export.
    pub(crate) fn disturb(&self) {
        self.state.lock().unwrap().disturb = true;
    }

    pub(crate) fn set_schema(&self, schema: &str) {
        self.state.lock().unwrap().schema = schema.to_owned();
    }
}

/// Runs `hookyard` with nothing but these variables.
pub(crate) async fn run(args: &[&str], variables: &[(&str, &str)]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_hookyard"))
        .args(args)
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended {
        code: output.status.code().unwrap(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// Code and text of a refusal.
type Refused = (StatusCode, &'static str, String);

fn refused(code: &'static str, text: impl Into<String>) -> Refused {
    (StatusCode::BAD_REQUEST, code, text.into())
}

async fn metadata_api(
    State(state): State<Arc<Mutex<Inner>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut inner = state.lock().unwrap();
    let answer = admit(&headers).and_then(|()| inner.run(&body));
    match answer {
        Ok(answer) => Json(answer).into_response(),
        Err((status, code, text)) => {
            let body = json!({"path": "$", "error": text, "code": code});
            (status, Json(body)).into_response()
        }
    }
}

fn admit(headers: &HeaderMap) -> Result<(), Refused> {
    let given = headers.get("x-hasura-admin-secret");
    if given.is_some_and(|given| given == SECRET) {
        return Ok(());
    }
    let text = "invalid \"x-hasura-admin-secret\"/\"x-hasura-access-key\"";
    Err((StatusCode::UNAUTHORIZED, "access-denied", text.to_owned()))
}

impl Inner {
    fn run(&mut self, body: &[u8]) -> Result<Value, Refused> {
        let command: Value = serde_json::from_slice(body).unwrap();
        match command["type"].as_str().unwrap() {
            "export_metadata" => {
                assert_eq!(command["version"], 2);
                let exported = json!({"resource_version": self.version, "metadata": self.metadata});
                self.version += u64::from(self.disturb);
                Ok(exported)
            }
            "bulk" => {
                if command["resource_version"] != self.version {
                    let text = "metadata resource version referenced did not match current version";
                    return Err((StatusCode::CONFLICT, "conflict", text.to_owned()));
                }
                let before = self.metadata.clone();
                let commands = command["args"].as_array().unwrap();
                let done: Result<Vec<Value>, Refused> =
                    commands.iter().map(|command| self.one(command)).collect();
                let done = done.inspect_err(|_| self.metadata = before)?;
                self.version += 1;
                self.commands.extend(commands.iter().cloned());
                Ok(Value::Array(done))
            }
            other => Err(refused("parse-failed", format!("unknown type {other}"))),
        }
    }

    fn one(&mut self, command: &Value) -> Result<Value, Refused> {
        let args = &command["args"];
        match command["type"].as_str().unwrap() {
            "pg_create_event_trigger" => self.event_trigger(args)?,
            other => return Err(refused("parse-failed", format!("unknown type {other}"))),
        }
        Ok(json!({"message": "success"}))
    }

    fn event_trigger(&mut self, args: &Value) -> Result<(), Refused> {
        let name = args["name"].as_str().unwrap();
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if !name.chars().all(plain) || !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            let text = "only alphanumeric and underscore and hyphens allowed for name";
            return Err(refused("parse-failed", text));
        }
        if name.len() > 42 {
            let text = "event trigger name can be at most 42 characters";
            return Err(refused("parse-failed", text));
        }
        for operation in ["insert", "update", "delete"] {
            if args[operation]["columns"] == json!([]) {
                return Err(refused("parse-failed", "found empty column specification"));
            }
        }
        self.resolve(args)?;
        let replace = args["replace"] == true;
        let tables = self.metadata["sources"][0]["tables"]
            .as_array_mut()
            .unwrap();
        let on = tables.iter().position(|table| {
            let triggers = table["event_triggers"].as_array();
            triggers.is_some_and(|all| all.iter().any(|trigger| trigger["name"] == name))
        });
        let place = tables
            .iter()
            .position(|table| table["table"] == args["table"]);
        let Some(place) = place else {
            let text = format!(
                "table {} does not exist in source: default",
                args["table"]["name"]
            );
            return Err(refused("not-exists", text));
        };
        match (replace, on) {
            (true, None) => {
                let text = format!("event trigger \"{name}\" does not exist");
                return Err(refused("not-exists", text));
            }
            (true, Some(on)) if on != place => {
                let text = "cannot replace table or schema for trigger";
                return Err(refused("not-supported", text));
            }
            (false, Some(_)) => {
                let text = format!("Event trigger with name \"{name}\" already exists");
                return Err(refused("already-exists", text));
            }
            (true, Some(_)) | (false, None) => {}
        }
        let mut trigger = json!({"name": name, "definition": {}});
        for (name, value) in args.as_object().unwrap() {
            match name.as_str() {
                "insert" | "update" | "delete" | "enable_manual" => {
                    trigger["definition"][name] = value.clone();
                }
                "source" | "table" | "replace" => {}
                _ => trigger[name] = value.clone(),
            }
        }
        let table = &mut tables[place];
        if table["event_triggers"].is_null() {
            table["event_triggers"] = json!([]);
        }
        let triggers = table["event_triggers"].as_array_mut().unwrap();
        triggers.retain(|trigger| trigger["name"] != name);
        triggers.push(trigger);
        Ok(())
    }

    /// Every variable that is named has to be set.
    fn resolve(&self, args: &Value) -> Result<(), Refused> {
        let headers = args["headers"].as_array().unwrap().iter();
        let headers = headers.filter_map(|header| header["value_from_env"].as_str());
        let named = args["webhook_from_env"].as_str().into_iter();
        for name in named.chain(headers) {
            if !self.variables.contains(&name) {
                let text = format!("environment variable '{name}' not set");
                return Err(refused("not-exists", text));
            }
        }
        Ok(())
    }
}

async fn graphql(
    State(state): State<Arc<Mutex<Inner>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Json<Value> {
    if let Err((_, code, text)) = admit(&headers) {
        let error = json!({"message": text, "extensions": {"path": "$", "code": code}});
        return Json(json!({"errors": [error]}));
    }
    let request: Value = serde_json::from_slice(&body).unwrap();
    assert!(request["query"].as_str().unwrap().contains("__schema"));
    let mut schema = state.lock().unwrap().schema.clone();
    if headers
        .get("x-hasura-role")
        .is_some_and(|role| role == "reader")
    {
        schema = schema.replace("  mutation: mutation_root\n", "");
    }
    Json(json!({"data": introspection(&schema)}))
}
