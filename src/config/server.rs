//! Where to listen, what to log, whom to believe.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tracing_subscriber::filter::{LevelFilter, Targets};

use super::admin::AdminTokens;
use super::reader::{Reader, Variable};

const HOST: Variable = Variable::defaulted("HOST", "0.0.0.0", "IP address to listen on");
const PORT: Variable = Variable::defaulted("PORT", "8080", "port to listen on");
const MAX_BODY_BYTES: Variable = Variable::defaulted(
    "MAX_BODY_BYTES",
    "14680064",
    "largest request body; the default fits a 10 MB message in base64",
);
const MAX_IN_FLIGHT: Variable = Variable::defaulted(
    "MAX_IN_FLIGHT",
    "1000",
    "events worked on at once; more are answered 503 and come again",
);
const SHUTDOWN_GRACE_MS: Variable = Variable::defaulted(
    "SHUTDOWN_GRACE_MS",
    "9000",
    "how long events in flight may take after SIGTERM (Cloud Run kills after 10 s)",
);
const K_REVISION: Variable = Variable::defaulted(
    "K_REVISION",
    concat!("hookyard-", env!("CARGO_PKG_VERSION")),
    "name of the running version, set by Cloud Run; goes into dead letters and log labels",
);
const LOG_LEVEL: Variable = Variable::defaulted(
    "LOG_LEVEL",
    "info",
    "`error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,hookyard::clients=debug`",
);
const LOG_FORMAT: Variable = Variable::optional(
    "LOG_FORMAT",
    "`json` (`pretty` on a terminal)",
    "`json` in Google Cloud Logging's structure, or `pretty`",
);
const K_SERVICE: Variable = Variable::defaulted(
    "K_SERVICE",
    "hookyard",
    "name of the service in log labels and Error Reporting, set by Cloud Run",
);
const NO_COLOR: Variable = Variable::optional(
    "NO_COLOR",
    "–",
    "set to anything: no colours, not even on a terminal",
);
const PUSH_AUTH_MODE: Variable = Variable::defaulted(
    "PUSH_AUTH_MODE",
    "verify",
    "`verify`: the token's signature is checked here; `platform`: Cloud Run's invoker check has \
     replaced the signature and only claims are checked",
);
const PUSH_AUDIENCE: Variable = Variable::required(
    "PUSH_AUDIENCE",
    "accepted token audience, comma-separated, exact match",
);
const PUSH_SERVICE_ACCOUNT: Variable = Variable::required(
    "PUSH_SERVICE_ACCOUNT",
    "accepted e-mail of the push service account, comma-separated, exact match",
);
const OIDC_ISSUER: Variable = Variable::defaulted(
    "OIDC_ISSUER",
    "https://accounts.google.com",
    "accepted token issuer (Google's is accepted in both its spellings)",
);
const OIDC_JWKS_URL: Variable = Variable::defaulted(
    "OIDC_JWKS_URL",
    "https://www.googleapis.com/oauth2/v3/certs",
    "where the issuer's public keys are",
);

pub(super) const VARIABLES: &[&Variable] = &[
    &HOST,
    &PORT,
    &LOG_LEVEL,
    &LOG_FORMAT,
    &K_SERVICE,
    &NO_COLOR,
    &PUSH_AUDIENCE,
    &PUSH_SERVICE_ACCOUNT,
    &PUSH_AUTH_MODE,
    &OIDC_ISSUER,
    &OIDC_JWKS_URL,
    &MAX_BODY_BYTES,
    &MAX_IN_FLIGHT,
    &SHUTDOWN_GRACE_MS,
    &K_REVISION,
];

/// Where and how to listen.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Listen address (`HOST`, `PORT`).
    pub listen: SocketAddr,
    /// Largest body in bytes (`MAX_BODY_BYTES`).
    pub max_body_bytes: usize,
    /// Events worked on at once (`MAX_IN_FLIGHT`).
    pub max_in_flight: usize,
    /// Time for events in flight after SIGTERM (`SHUTDOWN_GRACE_MS`).
    pub shutdown_grace: Duration,
    /// Who may use the admin API (`ADMIN_TOKEN`, `ADMIN_READ_TOKEN`).
    pub admin: AdminTokens,
    /// Name of the running version (`K_REVISION`, which Cloud Run sets), for dead letters.
    pub revision: String,
    /// How long a client may take to send its request head; not from the environment.
    pub header_timeout: Duration,
    /// How long a client may take to send its body; not from the environment.
    pub body_timeout: Duration,
}

impl ServerConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let host = reader.required(&HOST).parse().unwrap_or_else(|_| {
            reader.problem(HOST.name, "must be an IP address such as 0.0.0.0 or ::");
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        });
        let port = reader.parsed(&PORT, "a port number between 0 and 65535");
        let max_body = reader.positive(&MAX_BODY_BYTES, "bytes");
        let max_in_flight = reader.positive(&MAX_IN_FLIGHT, "events");
        if max_in_flight > 100_000 {
            reader.problem(MAX_IN_FLIGHT.name, "must be at most 100000");
        }
        Self {
            listen: SocketAddr::new(host, port),
            max_body_bytes: usize::try_from(max_body).unwrap_or(usize::MAX),
            max_in_flight: usize::try_from(max_in_flight.min(100_000)).unwrap_or(1000),
            shutdown_grace: reader.millis(&SHUTDOWN_GRACE_MS),
            admin: AdminTokens::read(reader),
            revision: reader.required(&K_REVISION),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(20),
        }
    }
}

/// How to write log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line, as Google Cloud Logging reads it.
    Json,
    /// For people at a terminal.
    Pretty,
}

/// What to log.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Level or filter directives (`LOG_LEVEL`).
    pub level: String,
    /// Format (`LOG_FORMAT`).
    pub format: LogFormat,
    /// Whether `Pretty` uses colours: only on a terminal, and not with `NO_COLOR`.
    pub colour: bool,
    /// Name of the service (`K_SERVICE`, which Cloud Run sets).
    pub service: String,
    /// Name of the running version (`K_REVISION`, which Cloud Run sets).
    pub revision: String,
}

impl LogConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let level = reader.required(&LOG_LEVEL).to_ascii_lowercase();
        if !is_filter(&level) {
            reader.problem(
                LOG_LEVEL.name,
                "must be error, warn, info, debug, trace, or a filter such as \
                 info,hookyard::clients=debug",
            );
        }
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
        let format = match reader.text(&LOG_FORMAT).as_deref() {
            Some("json") => LogFormat::Json,
            Some("pretty") => LogFormat::Pretty,
            None if terminal => LogFormat::Pretty,
            None => LogFormat::Json,
            Some(_) => {
                reader.problem(LOG_FORMAT.name, "must be json or pretty");
                LogFormat::Json
            }
        };
        Self {
            level,
            format,
            colour: terminal && reader.text(&NO_COLOR).is_none(),
            service: reader.required(&K_SERVICE),
            revision: reader.required(&K_REVISION),
        }
    }
}

/// Tells whether text is a level or a list of levels and `target=level`.
///
/// The parser also takes a bare word as the name of a target, so `warning` would let through
/// nothing but what a library of that name logs.
fn is_filter(text: &str) -> bool {
    let bare_words_are_levels = text
        .split(',')
        .filter(|part| !part.contains('='))
        .all(|part| part.trim().parse::<LevelFilter>().is_ok());
    bare_words_are_levels && text.parse::<Targets>().is_ok()
}

/// Who checks the signature of a push token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushAuthMode {
    /// This service does.
    Verify,
    /// Cloud Run's invoker check did, and took the signature away.
    Platform,
}

/// Whose push requests to accept.
#[derive(Debug, Clone)]
pub struct PushAuthConfig {
    /// Who checks the signature (`PUSH_AUTH_MODE`).
    pub mode: PushAuthMode,
    /// Accepted audiences (`PUSH_AUDIENCE`).
    pub audiences: Vec<String>,
    /// Accepted service accounts (`PUSH_SERVICE_ACCOUNT`).
    pub service_accounts: Vec<String>,
    /// Accepted issuer (`OIDC_ISSUER`).
    pub issuer: String,
    /// Where the keys are (`OIDC_JWKS_URL`).
    pub jwks_url: String,
}

impl PushAuthConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let mode = match reader.required(&PUSH_AUTH_MODE).as_str() {
            "verify" => PushAuthMode::Verify,
            "platform" => PushAuthMode::Platform,
            _ => {
                reader.problem(PUSH_AUTH_MODE.name, "must be verify or platform");
                PushAuthMode::Verify
            }
        };
        let jwks_url = reader.required(&OIDC_JWKS_URL);
        Self {
            mode,
            audiences: reader.list(&PUSH_AUDIENCE),
            service_accounts: reader.list(&PUSH_SERVICE_ACCOUNT),
            issuer: reader.required(&OIDC_ISSUER),
            jwks_url: reader.url(&OIDC_JWKS_URL, &jwks_url),
        }
    }
}
