//! Chargebee, Hasura and the token issuer's keys: fixed answers, as cheap as can be.
//!
//! Below `/slow` every answer takes 5 ms.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::tokens::KID;

static CALLS: AtomicU64 = AtomicU64::new(0);

const SUBSCRIPTION: &str = r#"{"subscription":{"id":"sub_16CHu2UWsBnxq1yQ","status":"active","resource_version":1767607200000,"updated_at":1767607200,"currency_code":"EUR","has_scheduled_changes":false,"object":"subscription"},"customer":{"id":"c1","first_name":"A","object":"customer","resource_version":1767607200000}}"#;
const CONTRACT: &str = r#"{"data":{"contracts_by_pk":{"id":"6dbf43d9-8f8e-4a2c-8a3b-0f1f1a1c9a51","status":"active","chargebee_subscription_id":null}}}"#;
const LINKED: &str =
    r#"{"data":{"update_contracts_by_pk":{"id":"6dbf43d9-8f8e-4a2c-8a3b-0f1f1a1c9a51"}}}"#;

/// Listens on a free port, which it prints, until it is killed.
pub(crate) fn serve(modulus: &str) {
    let keys = format!(
        r#"{{"keys":[{{"kty":"RSA","use":"sig","alg":"RS256","kid":"{KID}","n":"{modulus}","e":"AQAB"}}]}}"#
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    for stream in listener.incoming() {
        let keys = keys.clone();
        thread::spawn(move || converse(&mut stream.unwrap(), &keys));
    }
}

fn converse(stream: &mut TcpStream, keys: &str) {
    stream.set_nodelay(true).unwrap();
    let mut buffer = vec![0; 16_384];
    let mut filled = 0;
    loop {
        let Some(end) = request_end(&buffer[..filled]) else {
            match stream.read(&mut buffer[filled..]) {
                Ok(0) | Err(_) => return,
                Ok(read) => filled += read,
            }
            continue;
        };
        let answer = answer(&buffer[..end], keys);
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
        let answer = format!("{head}{}\r\n\r\n{answer}", answer.len());
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
        buffer.copy_within(end..filled, 0);
        filled -= end;
    }
}

/// Where the first request in the buffer ends, once it is there as a whole.
fn request_end(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).ok()?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let named = name.eq_ignore_ascii_case("content-length");
        named.then(|| value.trim().parse::<usize>().ok())?
    });
    let end = head + length.unwrap_or(0);
    (bytes.len() >= end).then_some(end)
}

fn answer(request: &[u8], keys: &str) -> String {
    let has = |word: &[u8]| request.windows(word.len()).any(|bytes| bytes == word);
    if request.starts_with(b"GET /jwks") {
        return keys.to_owned();
    }
    if request.starts_with(b"GET /calls") {
        return CALLS.load(Ordering::Relaxed).to_string();
    }
    CALLS.fetch_add(1, Ordering::Relaxed);
    let line = request.split(|&b| b == b'\r').next().unwrap_or_default();
    let path = String::from_utf8_lossy(line);
    if path.contains(" /slow/") {
        thread::sleep(Duration::from_millis(5));
    }
    if path.contains("/subscriptions/") {
        SUBSCRIPTION.to_owned()
    } else if has(b"ContractById") {
        CONTRACT.to_owned()
    } else {
        LINKED.to_owned()
    }
}

/// Asks how many calls were made so far, apart from those for keys.
pub(crate) fn calls(port: u16) -> u64 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /calls HTTP/1.1\r\n\r\n").unwrap();
    let mut buffer = [0; 512];
    let read = stream.read(&mut buffer).unwrap();
    let text = std::str::from_utf8(&buffer[..read]).unwrap();
    text.rsplit("\r\n").next().unwrap().parse().unwrap()
}
