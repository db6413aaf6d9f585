//! A token issuer on loopback: real RSA keys, any token one can think of, and a key endpoint that
//! answers with whatever bytes it is told to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hookyard::clock::{Clock as _, ManualClock};
use hookyard::config::{PushAuthConfig, PushAuthMode};
use hookyard::ingress::{Identity, OidcVerifier, TokenError, TokenVerifier};
use hookyard::telemetry::Metrics;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use crate::support::PATIENCE;

pub(crate) const AUDIENCE: &str = "https://hookyard.example/push";
pub(crate) const ACCOUNT: &str = "pusher@project.iam.gserviceaccount.com";
pub(crate) const ISSUER: &str = "https://accounts.google.com";

/// Makes an RSA key once and keeps it for all tests.
pub(crate) fn key(which: usize) -> &'static KeyPair {
    static KEYS: LazyLock<[KeyPair; 3]> =
        LazyLock::new(|| [(); 3].map(|()| KeyPair::generate(KeySize::Rsa2048).unwrap()));
    &KEYS[which]
}

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Takes modulus and exponent out of a DER `RSAPublicKey`.
pub(crate) fn modulus_and_exponent(key: &KeyPair) -> (Vec<u8>, Vec<u8>) {
    fn take(der: &mut &[u8]) -> Vec<u8> {
        let (head, length) = match der[1] {
            0x82 => (4, usize::from(der[2]) << 8 | usize::from(der[3])),
            0x81 => (3, usize::from(der[2])),
            short => (2, usize::from(short)),
        };
        let value = der[head..head + length].to_vec();
        *der = &der[head + length..];
        value
    }
    let mut outer = key.public_key().as_ref();
    let sequence = take(&mut outer);
    let mut inner = sequence.as_slice();
    let modulus = take(&mut inner);
    let exponent = take(&mut inner);
    (modulus[1..].to_vec(), exponent)
}

/// Describes a key as Google does.
pub(crate) fn jwk(kid: &str, key: &KeyPair) -> Value {
    let (n, e) = modulus_and_exponent(key);
    json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": b64(n), "e": b64(e)})
}

/// Signs any header and payload.
pub(crate) fn sign(header: &str, payload: &str, key: &KeyPair) -> String {
    let message = format!("{}.{}", b64(header), b64(payload));
    let mut signature = vec![0; key.public_modulus_len()];
    let random = aws_lc_rs::rand::SystemRandom::new();
    key.sign(
        &RSA_PKCS1_SHA256,
        &random,
        message.as_bytes(),
        &mut signature,
    )
    .unwrap();
    format!("{message}.{}", b64(signature))
}

pub(crate) fn header(kid: &str) -> String {
    json!({"alg": "RS256", "kid": kid, "typ": "JWT"}).to_string()
}

/// One HTTP answer, head and all, and whether the connection is closed after it.
#[derive(Clone)]
pub(crate) struct Answer {
    bytes: Vec<u8>,
    then_hang: bool,
}

impl Answer {
    pub(crate) fn raw(text: impl Into<Vec<u8>>) -> Self {
        Self {
            bytes: text.into(),
            then_hang: false,
        }
    }

    pub(crate) fn hanging_after(text: impl Into<Vec<u8>>) -> Self {
        Self {
            bytes: text.into(),
            then_hang: true,
        }
    }

    pub(crate) fn ok(body: impl AsRef<[u8]>, more_headers: &str) -> Self {
        let body = body.as_ref();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{more_headers}connection: close\r\n\r\n",
            body.len()
        );
        Self::raw([head.as_bytes(), body].concat())
    }

    pub(crate) fn keys(keys: &[Value]) -> Self {
        Self::ok(json!({ "keys": keys }).to_string(), "")
    }
}

/// The issuer, with a verifier that believes it and a clock that stands still.
pub(crate) struct Issuer {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) verifier: Arc<OidcVerifier>,
    answer: Arc<Mutex<Answer>>,
    hits: Arc<AtomicUsize>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) url: String,
    _tasks: TaskTracker,
}

pub(crate) fn config(url: &str, mode: PushAuthMode) -> PushAuthConfig {
    PushAuthConfig {
        mode,
        audiences: vec![AUDIENCE.to_owned()],
        service_accounts: vec![ACCOUNT.to_owned()],
        issuer: ISSUER.to_owned(),
        jwks_url: url.to_owned(),
    }
}

impl Issuer {
    /// Publishes the first key under the name `k0`.
    pub(crate) async fn start() -> Self {
        Self::answering(Answer::keys(&[jwk("k0", key(0))])).await
    }

    /// Is waited for as long as anything may take, unless it is known to hang.
    pub(crate) async fn answering(answer: Answer) -> Self {
        let wait = match answer.then_hang {
            true => Duration::from_secs(2),
            false => PATIENCE,
        };
        Self::waited_for(answer, wait).await
    }

    /// An issuer whose answers are waited for so long.
    pub(crate) async fn waited_for(answer: Answer, wait: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let answer = Arc::new(Mutex::new(answer));
        let hits = Arc::new(AtomicUsize::new(0));
        let tasks = TaskTracker::new();
        let clock = ManualClock::start();
        let metrics = Metrics::new().unwrap();
        let verifier = OidcVerifier::with_fetch_timeout(
            &config(&url, PushAuthMode::Verify),
            clock.clone(),
            metrics.clone(),
            wait,
        );
        let issuer = Self {
            clock,
            verifier: Arc::new(verifier),
            answer: answer.clone(),
            hits: hits.clone(),
            metrics,
            url,
            _tasks: tasks.clone(),
        };
        tasks.clone().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tasks.spawn(give(stream, answer.clone(), hits.clone()));
            }
        });
        issuer
    }

    pub(crate) fn now_answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// How often the keys were asked for.
    pub(crate) fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock
            .now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs()
    }

    /// The claims Google would write now.
    pub(crate) fn claims(&self) -> Value {
        json!({
            "aud": AUDIENCE, "azp": "113774264463038321964", "email": ACCOUNT,
            "sub": "113774264463038321964", "email_verified": true,
            "exp": self.now() + 3600, "iat": self.now(), "iss": ISSUER,
        })
    }

    /// A good token, signed with the first key.
    pub(crate) fn token(&self) -> String {
        self.token_with(|_| {})
    }

    /// A token with some claims changed; a null claim is taken out.
    pub(crate) fn token_with(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = self.claims();
        change(&mut claims);
        sign(&header("k0"), &claims.to_string(), key(0))
    }

    pub(crate) fn token_of(&self, kid: &str, key: &KeyPair) -> String {
        sign(&header(kid), &self.claims().to_string(), key)
    }

    /// Judges as the door does: at once if possible, else by waiting.
    pub(crate) async fn judge(&self, token: &str) -> Result<Identity, TokenError> {
        match self.verifier.verify_now(token) {
            Some(result) => result,
            None => self.verifier.verify(token).await,
        }
    }

    pub(crate) async fn status(&self, token: &str) -> u16 {
        self.judge(token)
            .await
            .map_or_else(|error| error.status().as_u16(), |_| 200)
    }
}

async fn give(mut stream: TcpStream, answer: Arc<Mutex<Answer>>, hits: Arc<AtomicUsize>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    hits.fetch_add(1, Ordering::SeqCst);
    let answer = answer.lock().unwrap().clone();
    stream.write_all(&answer.bytes).await.ok();
    if answer.then_hang {
        // Until the other side gives up.
        stream.read_u8().await.ok();
    }
}
