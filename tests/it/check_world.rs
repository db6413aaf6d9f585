//! Everything `hookyard check` looks at, set up well, for tests to break one thing of: Pub/Sub in
//! the real emulator; Cloud Run, rights, Hasura and Chargebee as stand-ins over HTTP.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use hookyard::sandbox::Sandbox;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::check_schema;
use crate::emulator::Emulator;

pub(crate) const REGION: &str = "europe-west1";
pub(crate) const URI: &str = "https://hookyard-abc-ew.a.run.app";
pub(crate) const AUDIENCE: &str = "hookyard.acme";
const NUMBER: &str = "415104041262";

/// Stands for every secret; must never be printed.
pub(crate) const CANARY: &str = "canary-0123456789abcdef";

/// A whole chain, as data.
pub(crate) struct World {
    pub(crate) project: String,
    pub(crate) push_account: String,
    /// Topics that exist.
    pub(crate) topics: Vec<&'static str>,
    /// Subscriptions by name, as the emulator takes them; `topic` is a short name.
    pub(crate) subscriptions: BTreeMap<&'static str, Value>,
    /// Topics that are deleted once everything is set up.
    pub(crate) deleted: Vec<&'static str>,
    /// What the stand-ins answer, by path; a number is a status.
    pub(crate) answers: BTreeMap<String, Value>,
    pub(crate) metadata: Value,
    /// The schema as the admin sees it, and as a role does.
    pub(crate) schema: String,
    pub(crate) role_schema: Option<String>,
    /// Variables of the command.
    pub(crate) variables: BTreeMap<&'static str, String>,
    pub(crate) arguments: Vec<String>,
}

/// What the command did.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn report(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("{}", self.stderr))
    }

    /// The rows of the report that are not ok, without the one on the emulator itself.
    pub(crate) fn findings(&self) -> Vec<Value> {
        let report = self.report();
        let rows = report["checks"].as_array().unwrap().clone();
        let rows = rows.into_iter();
        rows.filter(|row| row["state"] != "ok" && row["found"] != "messages go to an emulator")
            .collect()
    }
}

impl World {
    /// A chain in which everything is right.
    pub(crate) fn good(project: &str) -> Self {
        let account = |name: &str| format!("{name}@{project}.iam.gserviceaccount.com");
        let (push, run) = (account("hookyard-push"), account("hookyard-run"));
        let mut world = Self {
            project: project.to_owned(),
            topics: vec!["contract-events", "hookyard-events", "hookyard-dead"],
            subscriptions: BTreeMap::new(),
            deleted: Vec::new(),
            answers: BTreeMap::new(),
            metadata: good_metadata(),
            schema: include_str!("../../graphql/schema.graphql").to_owned(),
            role_schema: None,
            variables: BTreeMap::new(),
            arguments: Vec::new(),
            push_account: push.clone(),
        };
        world.subscriptions.insert(
            "contract-events-hookyard",
            json!({
                "topic": "contract-events",
                "ackDeadlineSeconds": 60,
                "pushConfig": {
                    "pushEndpoint": format!("{URI}/push"),
                    "oidcToken": {"serviceAccountEmail": push, "audience": AUDIENCE},
                },
                "retryPolicy": {"minimumBackoff": "10s", "maximumBackoff": "600s"},
                "deadLetterPolicy": {
                    "deadLetterTopic": world.topic("hookyard-dead"),
                    "maxDeliveryAttempts": 100,
                },
                "expirationPolicy": {},
            }),
        );
        let dead = json!({"topic": "hookyard-dead", "expirationPolicy": {}});
        world.subscriptions.insert("hookyard-dead", dead);

        let agent =
            format!("serviceAccount:service-{NUMBER}@gcp-sa-pubsub.iam.gserviceaccount.com");
        let run_as = format!("serviceAccount:{run}");
        let gives =
            |role: &str, who: &[&str]| json!({"bindings": [{"role": role, "members": who}]});
        let publisher = "roles/pubsub.publisher";
        let dead = world.topic("hookyard-dead");
        let events = world.topic("hookyard-events");
        let subscription = world.subscription("contract-events-hookyard");
        let account = format!(
            "/accounts/projects/-/serviceAccounts/{}",
            push.replace('@', "%40")
        );
        let answers = [
            (
                format!("/rights/{dead}:getIamPolicy"),
                gives(publisher, &[&run_as, &agent]),
            ),
            (
                format!("/rights/{events}:getIamPolicy"),
                gives(publisher, &[&run_as]),
            ),
            (
                format!("/rights/{subscription}:getIamPolicy"),
                gives("roles/pubsub.subscriber", &[&agent]),
            ),
            (world.service_path(), world.good_service(&run)),
            (format!("{}:getIamPolicy", world.service_path()), json!({})),
            (account.clone(), json!({"email": push})),
            (
                format!("{account}:getIamPolicy"),
                gives("roles/iam.serviceAccountOpenIdTokenCreator", &[&agent]),
            ),
            (
                format!("/projects/projects/{project}"),
                json!({"name": format!("projects/{NUMBER}")}),
            ),
            (
                format!("/projects/projects/{project}:getIamPolicy"),
                json!({}),
            ),
            ("/chargebee/api/v2/items".to_owned(), json!({"list": []})),
            (
                "/chargebee/api/v2/subscriptions".to_owned(),
                json!({"list": []}),
            ),
        ];
        world.answers = answers.into();
        world.variables = world.good_variables();
        world
    }

    pub(crate) fn topic(&self, name: &str) -> String {
        format!("projects/{}/topics/{name}", self.project)
    }

    pub(crate) fn subscription(&self, name: &str) -> String {
        format!("projects/{}/subscriptions/{name}", self.project)
    }

    pub(crate) fn service_path(&self) -> String {
        let project = &self.project;
        format!("/run/projects/{project}/locations/{REGION}/services/hookyard")
    }

    /// The push subscription's settings.
    pub(crate) fn push(&mut self) -> &mut Value {
        self.subscriptions
            .get_mut("contract-events-hookyard")
            .unwrap()
    }

    /// The Cloud Run service.
    pub(crate) fn service(&mut self) -> &mut Value {
        let path = self.service_path();
        self.answers.get_mut(&path).unwrap()
    }

    /// Who may call the Cloud Run service.
    pub(crate) fn invokers(&mut self, who: &[&str]) {
        let bindings = json!({"bindings": [{"role": "roles/run.invoker", "members": who}]});
        let path = format!("{}:getIamPolicy", self.service_path());
        self.answers.insert(path, bindings);
    }

    /// Sets a variable of the Cloud Run service, here and there.
    pub(crate) fn set(&mut self, name: &'static str, value: &str) {
        self.variables.insert(name, value.to_owned());
        let env = &mut self.service()["template"]["containers"][0]["env"];
        let env = env.as_array_mut().unwrap();
        env.retain(|it| it["name"] != name);
        env.push(json!({"name": name, "value": value}));
    }

    /// Turns everything to `PUSH_AUTH_MODE=platform`, set up well.
    pub(crate) fn platform(&mut self) {
        self.set("PUSH_AUTH_MODE", "platform");
        self.service()["invokerIamDisabled"] = false.into();
        self.service()["customAudiences"] = json!([AUDIENCE]);
        let push = format!("serviceAccount:{}", self.push_account);
        self.invokers(&[&push]);
    }

    /// The first event trigger.
    pub(crate) fn trigger(&mut self) -> &mut Value {
        &mut self.metadata["sources"][0]["tables"][0]["event_triggers"][0]
    }

    fn good_variables(&self) -> BTreeMap<&'static str, String> {
        let variables = [
            ("PUSH_AUDIENCE", AUDIENCE),
            ("PUSH_SERVICE_ACCOUNT", &self.push_account),
            ("HASURA_ADMIN_SECRET", CANARY),
            ("CHARGEBEE_API_KEY", CANARY),
            ("ADMIN_TOKEN", CANARY),
            ("GOOGLE_OAUTH_ACCESS_TOKEN", CANARY),
            ("GOOGLE_CLOUD_PROJECT", &self.project),
            ("EVENTS_TOPIC", "hookyard-events"),
            ("DEAD_LETTER_TOPIC", "hookyard-dead"),
            ("PUSH_SUBSCRIPTION", "contract-events-hookyard"),
            ("K_SERVICE", "hookyard"),
            ("CLOUD_RUN_REGION", REGION),
            ("NO_COLOR", "1"),
        ];
        variables
            .map(|(name, value)| (name, value.to_owned()))
            .into()
    }

    fn good_service(&self, run_as: &str) -> Value {
        let project = &self.project;
        let plain = [
            ("PUSH_AUTH_MODE", "verify"),
            ("PUSH_AUDIENCE", AUDIENCE),
            ("PUSH_SERVICE_ACCOUNT", &self.push_account),
            (
                "HASURA_GRAPHQL_URL",
                "https://hasura.acme.example/v1/graphql",
            ),
            ("CHARGEBEE_URL", "https://acme-test.chargebee.com"),
            ("GOOGLE_CLOUD_PROJECT", project),
            ("EVENTS_TOPIC", "hookyard-events"),
            ("DEAD_LETTER_TOPIC", "hookyard-dead"),
            ("ACK_DEADLINE_MS", "60000"),
            ("HANDLER_TIMEOUT_MS", "50000"),
            ("MAX_IN_FLIGHT", "80"),
        ];
        let plain = plain.map(|(name, value)| json!({"name": name, "value": value}));
        let secrets = ["HASURA_ADMIN_SECRET", "CHARGEBEE_API_KEY", "ADMIN_TOKEN"].map(|name| {
            let secret = name.to_ascii_lowercase().replace('_', "-");
            let secret = json!({"secret": format!("hookyard-{secret}"), "version": "latest"});
            json!({"name": name, "valueSource": {"secretKeyRef": secret}})
        });
        let env: Vec<Value> = plain.into_iter().chain(secrets).collect();
        json!({
            "name": format!("projects/{project}/locations/{REGION}/services/hookyard"),
            "uri": URI,
            "urls": [URI],
            "ingress": "INGRESS_TRAFFIC_INTERNAL_ONLY",
            "invokerIamDisabled": true,
            "template": {
                "timeout": "70s",
                "maxInstanceRequestConcurrency": 80,
                "serviceAccount": run_as,
                "containers": [
                    {"name": "hookyard", "ports": [{"containerPort": 8080}], "env": env},
                    {"name": "collector", "env": [{"name": "PUSH_AUDIENCE", "value": "another"}]},
                ],
            },
            "terminalCondition": {"type": "Ready", "state": "CONDITION_SUCCEEDED"},
        })
    }

    /// Sets everything up, runs the command and returns what it printed.
    pub(crate) async fn run(mut self, emulator: &Emulator, sandbox: &Sandbox, json: bool) -> Ran {
        let mut emulator = emulator.clone();
        emulator.project.clone_from(&self.project);
        for topic in &self.topics {
            let name = emulator.topic(topic);
            emulator.call("PUT", &name, json!({})).await.unwrap();
        }
        for (name, settings) in std::mem::take(&mut self.subscriptions) {
            let topic = settings["topic"].as_str().unwrap().to_owned();
            emulator.subscribe(name, &topic, settings).await;
        }
        for topic in &self.deleted {
            let name = emulator.topic(topic);
            emulator.call("DELETE", &name, json!({})).await.unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let mut own = BTreeMap::from([
            ("HASURA_GRAPHQL_URL", format!("{base}/hasura/v1/graphql")),
            ("CHARGEBEE_URL", format!("{base}/chargebee")),
            (
                "OIDC_JWKS_URL",
                sandbox.variables()["OIDC_JWKS_URL"].clone(),
            ),
            ("PUBSUB_EMULATOR_HOST", emulator.host.clone()),
        ]);
        own.append(&mut self.variables);
        // What the service is told of upstreams are the stand-ins.
        for name in ["HASURA_GRAPHQL_URL", "CHARGEBEE_URL"] {
            let path = self.service_path();
            if let Some(env) = self
                .answers
                .get_mut(&path)
                .and_then(|it| it.pointer_mut("/template/containers/0/env"))
                .and_then(Value::as_array_mut)
            {
                let told = env.iter_mut().find(|it| it["name"] == name);
                told.unwrap()["value"] = own[name].clone().into();
            }
        }
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_hookyard"));
        command.arg("check").args(&self.arguments);
        command.args(json.then_some("--json"));
        for api in ["pubsub-rights", "run", "accounts", "projects"] {
            let path = api.trim_start_matches("pubsub-");
            command.arg(format!("--{api}-url={base}/{path}"));
        }
        let mut tasks = JoinSet::new();
        let router = Router::new().fallback(answer).with_state(Arc::new(self));
        tasks.spawn(async move { axum::serve(listener, router).await });
        let output = command
            .env_clear()
            .envs(own)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn good_metadata() -> Value {
    let trigger = |name: &str, ops: Value| {
        let mut trigger = json!({
            "name": name,
            "definition": ops,
            "retry_conf": {"num_retries": 10, "interval_sec": 10, "timeout_sec": 60},
            "webhook": "{{BRIDGE_URL}}/hasura/events",
            "headers": [{"name": "x-hookyard-secret", "value_from_env": "BRIDGE_SECRET"}],
        });
        trigger["definition"]["enable_manual"] = true.into();
        trigger
    };
    let all = json!({"columns": "*"});
    json!({
        "version": 3,
        "sources": [{
            "name": "default",
            "kind": "postgres",
            "tables": [
                {
                    "table": {"schema": "public", "name": "contracts"},
                    "event_triggers": [trigger("contract_events", json!({"insert": all, "update": all}))],
                },
                {
                    "table": {"schema": "public", "name": "customers"},
                    "event_triggers": [
                        trigger("customer_events", json!({"insert": all, "update": all, "delete": all})),
                    ],
                },
                {"table": {"schema": "public", "name": "notes"}},
            ],
        }],
    })
}

async fn answer(State(world): State<Arc<World>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let path = head.uri.path();
    let credential = if path.starts_with("/hasura") {
        "x-hasura-admin-secret"
    } else {
        "authorization"
    };
    if !head.headers.contains_key(credential) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if path.starts_with("/hasura") && !world.answers.contains_key(path) {
        let question: Value = serde_json::from_slice(&body).unwrap();
        let role = head.headers.contains_key("x-hasura-role");
        let schema = world.role_schema.as_ref().filter(|_| role);
        let answer = match path {
            "/hasura/v1/metadata" => json!({"resource_version": 1, "metadata": world.metadata}),
            _ => check_schema::answer(schema.unwrap_or(&world.schema), &question),
        };
        return axum::Json(answer).into_response();
    }
    match world.answers.get(path) {
        Some(Value::Number(status)) => {
            let status = u16::try_from(status.as_u64().unwrap()).unwrap();
            let refusal = json!({"error": {"code": status, "message": CANARY}});
            (StatusCode::from_u16(status).unwrap(), axum::Json(refusal)).into_response()
        }
        Some(Value::Array(with_status)) => {
            let status = u16::try_from(with_status[0].as_u64().unwrap()).unwrap();
            let body = axum::Json(with_status[1].clone());
            (StatusCode::from_u16(status).unwrap(), body).into_response()
        }
        Some(answer) => axum::Json(answer.clone()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
