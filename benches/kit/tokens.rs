//! Tokens as Pub/Sub signs them, made ahead of time: signing costs more than verifying.

use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

pub(crate) const AUDIENCE: &str = "https://hookyard.example/push";
pub(crate) const ACCOUNT: &str = "pusher@bench.iam.gserviceaccount.com";
pub(crate) const KID: &str = "bench-key-1";

/// A key and what it signs.
pub(crate) struct Issuer {
    key: RsaKeyPair,
    issued: u64,
}

impl Issuer {
    pub(crate) fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Self {
            key: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            issued: now.as_secs(),
        }
    }

    /// The public key's modulus as a JWK has it.
    pub(crate) fn modulus(&self) -> String {
        // DER of a 2048-bit RSAPublicKey ends in the modulus and 65537 as `02 03 01 00 01`.
        let der = self.key.public_key().as_ref();
        let modulus = der.len() - 5 - 256;
        BASE64_URL_SAFE_NO_PAD.encode(&der[modulus..der.len() - 5])
    }

    /// Signs a token; those of different numbers differ, and all are of one length.
    pub(crate) fn sign(&self, number: usize) -> String {
        let header = format!(r#"{{"alg":"RS256","kid":"{KID}","typ":"JWT"}}"#);
        let claims = format!(
            r#"{{"aud":"{AUDIENCE}","azp":"113774264463038321964","email":"{ACCOUNT}","email_verified":true,"exp":{},"iat":{},"iss":"https://accounts.google.com","sub":"113774264463038321964","n":"{number:09}"}}"#,
            self.issued + 3_600,
            self.issued,
        );
        let encode = |text: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(text);
        let signed = format!(
            "{}.{}",
            encode(header.as_bytes()),
            encode(claims.as_bytes())
        );
        let mut signature = vec![0; self.key.public_modulus_len()];
        let random = SystemRandom::new();
        let message = signed.as_bytes();
        self.key
            .sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
            .unwrap();
        format!("{signed}.{}", encode(&signature))
    }

    /// Signs many, on two cores.
    pub(crate) fn pool(&self, size: usize) -> Vec<String> {
        let half = size / 2;
        thread::scope(|scope| {
            let rest = scope.spawn(|| (half..size).map(|n| self.sign(n)).collect::<Vec<_>>());
            let mut pool: Vec<String> = (0..half).map(|n| self.sign(n)).collect();
            pool.extend(rest.join().unwrap());
            pool
        })
    }
}

/// The same token under a signature that nobody made.
pub(crate) fn forge(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let signature: String = signature.chars().rev().collect();
    // The last character of 256 bytes carries four bits only; keep it decodable.
    format!("{signed}.{}A", &signature[..signature.len() - 1])
}
