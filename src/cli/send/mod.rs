//! `hookyard send`: one event, pushed the way Pub/Sub pushes it.

mod wrap;

use std::io::Read;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Args;

use self::wrap::{RowOptions, Wrapped};
use super::dev::{DevState, render_trace};
use super::output::{self, Ink, Paint};
use crate::clock::{Clock, SystemClock};
use crate::error::BoxError;
use crate::event::TraceContext;
use crate::sandbox::{PubsubMessage, Trace, envelope, loopback_client};

/// Wait before the second try of `--wait`; doubled for each further one, as a subscription does.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Send one event to a service, the way Pub/Sub would push it.
///
/// Reads a Hasura event, a scheduled trigger or a CloudEvent from FILE (or `-` for stdin), or with
/// `--op` a bare row, wraps it in a push envelope with a trace of its own, and posts it. Without `--to`
/// and a token it goes to the running `hookyard dev`, signed with the sandbox's key, and what the
/// service did with it is shown. Samples are in examples/events.
///
/// Exits 0 when the service acknowledged it with 200, else 1.
#[derive(Debug, Args)]
pub(super) struct SendArgs {
    /// The event, or `-` for stdin.
    #[arg(value_name = "FILE")]
    file: String,

    /// The input is a bare row: make an event of this operation of it.
    #[arg(long, value_name = "OP", value_parser = ["insert", "update", "delete", "manual"],
          ignore_case = true)]
    op: Option<String>,

    /// Name of the trigger of a bare row [default: <table>_events].
    #[arg(long, value_name = "NAME", requires = "op")]
    trigger: Option<String>,

    /// Table of a bare row, with its schema if that is not public.
    #[arg(
        long,
        value_name = "[SCHEMA.]TABLE",
        default_value = "contracts",
        requires = "op"
    )]
    table: String,

    /// Send the input as it is, whatever it is, as the message's data.
    #[arg(long, conflicts_with = "op")]
    raw: bool,

    /// Push endpoint [default: that of the running `hookyard dev`].
    #[arg(long, value_name = "URL")]
    to: Option<String>,

    /// Bearer token to send.
    #[arg(
        long,
        value_name = "TOKEN",
        env = "HOOKYARD_PUSH_TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,

    /// Get the token from `gcloud auth print-identity-token`.
    #[arg(long, conflicts_with = "token")]
    gcloud: bool,

    /// Audience of the token to get [default: the push endpoint, or the sandbox's own].
    #[arg(long, value_name = "AUDIENCE")]
    audience: Option<String>,

    /// Pub/Sub's message id [default: a fresh one].
    #[arg(long, value_name = "ID")]
    message_id: Option<String>,

    /// An attribute of the message; may be given several times.
    #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = pair)]
    attributes: Vec<(String, String)>,

    /// Ordering key of the message.
    #[arg(long, value_name = "KEY")]
    ordering_key: Option<String>,

    /// Which delivery of the message this is, as a subscription with a dead-letter policy tells.
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,

    /// Deliver again until the service acknowledges it, at most this long.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// How the service answered.
struct Answer {
    status: u16,
    request_id: String,
    retry_after: Option<String>,
}

/// Runs `hookyard send`.
///
/// # Errors
/// When the input cannot be read or is no event, no token can be had, or nothing listens.
pub(super) async fn send(mut args: SendArgs) -> Result<ExitCode, BoxError> {
    let paint = Paint::of_stdout();
    let input = read(&args.file).await?;
    let data = wrap(&mut args, input)?;
    let dev = DevState::read();
    let to = match (&args.to, &dev) {
        (Some(url), _) => url.clone(),
        (None, Some(dev)) => format!("http://{}/push", dev.service),
        (None, None) => {
            return Err(
                "no `hookyard dev` is running; start it, or say --to URL and --token".into(),
            );
        }
    };
    // The sandbox knows nothing of what another service did.
    let dev = dev.filter(|dev| to.contains(&dev.service.to_string()));
    let token = token(&args, dev.as_ref(), &to).await?;

    let trace = TraceContext::new_root();
    let body = body(&args, data, &trace);
    let end = SystemClock.monotonic() + Duration::from_secs(args.wait);
    let mut wait = FIRST_WAIT;
    let answer = loop {
        let answer = post(&to, &token, body.clone()).await?;
        output::print(&describe(&answer, paint));
        if answer.status == 200 || SystemClock.monotonic() + wait > end {
            break answer;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    };
    if let Some(dev) = dev {
        let traces = traces(&dev, &trace.trace_id(), &answer.request_id).await;
        let shown: Vec<_> = traces
            .iter()
            .map(|trace| render_trace(trace, paint))
            .collect();
        output::print(&shown.join("\n"));
    }
    Ok(if answer.status == 200 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn read(file: &str) -> Result<Vec<u8>, BoxError> {
    let path = file.to_owned();
    let read = tokio::task::spawn_blocking(move || match path.as_str() {
        "-" => {
            let mut bytes = Vec::new();
            std::io::stdin()
                .lock()
                .read_to_end(&mut bytes)
                .map(|_| bytes)
        }
        path => std::fs::read(path),
    });
    Ok(read
        .await?
        .map_err(|error| format!("cannot read {file}: {error}"))?)
}

/// Makes the message's data of the input, and says so when it is no event.
fn wrap(args: &mut SendArgs, input: Vec<u8>) -> Result<Vec<u8>, BoxError> {
    if args.raw {
        return Ok(input);
    }
    let row = args.op.as_deref().map(|op| RowOptions {
        op,
        table: &args.table,
        trigger: args.trigger.as_deref(),
    });
    match wrap::wrap(input, row.as_ref())? {
        Wrapped::Event(data) => Ok(data),
        Wrapped::CloudEvent(data, attributes) => {
            // Those of the command line come later and win.
            args.attributes.splice(0..0, attributes);
            Ok(data)
        }
        Wrapped::NoJson(data) => {
            output::warn("this is not JSON; sent as it is, it will end as a dead letter");
            Ok(data)
        }
    }
}

/// Makes the push request's body.
fn body(args: &SendArgs, data: Vec<u8>, trace: &TraceContext) -> String {
    let fresh = || rand::random_range(1_u64..10_000_000_000_000_000).to_string();
    let mut message = PubsubMessage {
        message_id: args.message_id.clone().unwrap_or_else(fresh),
        publish_time: SystemClock.now(),
        data: data.into(),
        attributes: args.attributes.iter().cloned().collect(),
        ordering_key: args.ordering_key.clone(),
    };
    message
        .attributes
        .entry("traceparent".to_owned())
        .or_insert_with(|| trace.to_string());
    envelope(
        &message,
        "projects/sandbox/subscriptions/hookyard-send",
        args.attempt,
    )
    .to_string()
}

async fn token(args: &SendArgs, dev: Option<&DevState>, to: &str) -> Result<String, BoxError> {
    if let Some(token) = &args.token {
        return Ok(token.clone());
    }
    if args.gcloud {
        return gcloud_token(args.audience.as_deref().unwrap_or(to)).await;
    }
    let Some(dev) = dev else {
        return Err("the sandbox signs for its own service only; give --token or --gcloud".into());
    };
    let mut url = url::Url::parse(&format!("http://{}/token", dev.sandbox))?;
    if let Some(audience) = &args.audience {
        url.query_pairs_mut().append_pair("audience", audience);
    }
    let client = loopback_client(Duration::from_secs(5))?;
    let answer = client.post(url).send().await.map_err(|_| GONE)?;
    Ok(answer.text().await.map_err(|_| GONE)?)
}

const GONE: &str = "`hookyard dev` was running but is not any more; start it again";

async fn gcloud_token(audience: &str) -> Result<String, BoxError> {
    let audience = format!("--audiences={audience}");
    let printed = tokio::task::spawn_blocking(move || {
        Command::new("gcloud")
            .args(["auth", "print-identity-token", &audience])
            .output()
    });
    let output = printed.await?;
    let output = output.map_err(|error| format!("cannot run gcloud: {error}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("gcloud gave no token: {}", why.trim()).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

async fn post(to: &str, token: &str, body: String) -> Result<Answer, BoxError> {
    // As long as a subscription's longest ack deadline.
    let client = loopback_client(Duration::from_secs(600))?;
    let request = client
        .post(to)
        .bearer_auth(token)
        .header("content-type", "application/json");
    let response = request
        .body(body)
        .send()
        .await
        .map_err(|error| match error.is_connect() {
            true => format!("nothing listens at {to}"),
            false => format!("{to} did not answer: {}", error.without_url()),
        })?;
    let header = |name| {
        response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    Ok(Answer {
        status: response.status().as_u16(),
        request_id: header("x-request-id").unwrap_or_default().to_owned(),
        retry_after: header("retry-after").map(str::to_owned),
    })
}

/// Says what a status means to Pub/Sub and what to do about it.
fn describe(answer: &Answer, paint: Paint) -> String {
    let meaning = match answer.status {
        200 => "acknowledged: applied, skipped, a duplicate, unrouted, or kept as a dead letter",
        401 => "refused: no good token; it would be delivered again",
        403 => "refused: a good token of somebody else; it would be delivered again",
        404 | 405 => "there is no push endpoint at this address",
        408 => "the body came too slowly",
        413 => "the body is larger than MAX_BODY_BYTES",
        415 => "compressed bodies are not taken",
        503 => "not now; Pub/Sub would deliver it again",
        _ => "not an answer this service gives",
    };
    let ink = if answer.status == 200 {
        Ink::Green
    } else {
        Ink::Red
    };
    let mut line = format!("{} {meaning}", paint.ink(ink, &answer.status.to_string()));
    if let Some(after) = &answer.retry_after {
        line.push_str(&format!(", after {after} s"));
    }
    if !answer.request_id.is_empty() {
        let id = format!("x-request-id {}", answer.request_id);
        line.push_str(&format!("\n{}", paint.ink(Ink::Dim, &id)));
    }
    line
}

/// Asks the sandbox what the service did. The last step is written just after the answer is sent,
/// so it may be asked twice.
async fn traces(dev: &DevState, trace_id: &str, request_id: &str) -> Vec<Trace> {
    let Ok(client) = loopback_client(Duration::from_secs(5)) else {
        return Vec::new();
    };
    for id in [trace_id, request_id].into_iter().cycle().take(20) {
        let url = format!("http://{}/traces/{id}", dev.sandbox);
        if let Ok(answer) = client.get(&url).send().await
            && let Ok(bytes) = answer.bytes().await
            && let Ok(traces) = serde_json::from_slice::<Vec<Trace>>(&bytes)
            && traces.last().is_some_and(|trace| trace.answered)
        {
            return traces;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    Vec::new()
}
