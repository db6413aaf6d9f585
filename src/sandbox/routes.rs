//! Which part of the sandbox answers which path. All parts share one port: their paths are those
//! of the real services, and no two of them collide.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::http::{Answers, Reply, Request};
use super::{AUDIENCE, DEFAULT_TTL, JWKS_PATH, Parts, SERVICE_ACCOUNT, TOPIC};

/// Shown at `/`.
const INDEX: &str = "\
hookyard sandbox

  GET  /oauth2/v3/certs           public keys of the token issuer
  POST /token?audience=&email=    a signed token (both default to what the service accepts)
  POST /publish?topic=            publish the body; ?key= sets an ordering key, other
                                  parameters become attributes
  GET  /messages?topic=           what was published to a topic
  GET  /deliveries/{message id}   how the service answered it
  POST /push                      pass a push request on to the service with a token
  GET  /traces/{id}               what the service did: trace id, request id or event id
  GET  /journal?upstream=         what the stand-ins saw
  POST /broker                    publish for a service in another process
  *    /api/v2/…                  Chargebee
  POST /v1/graphql                Hasura
";

/// Returns what answers the sandbox's requests.
pub(super) fn answers(parts: Parts) -> Answers {
    Arc::new(move |request| {
        let parts = parts.clone();
        Box::pin(async move { parts.answer(request).await })
    })
}

impl Parts {
    async fn answer(&self, request: Request) -> Reply {
        let segments = request.segments();
        let path: Vec<&str> = segments.iter().map(String::as_str).collect();
        match (request.method.as_str(), &path[..]) {
            (_, ["api", "v2", ..]) => self.chargebee.answer(request).await,
            ("POST", ["v1", "graphql"]) => self.hasura.answer(request).await,
            ("GET", _) if request.path == JWKS_PATH => self.issuer.answer_keys(&request).await,
            ("POST", ["token"]) => self.token(&request),
            ("POST", ["publish"]) => self.publish(&request),
            ("POST", ["push"]) => self.proxy.answer(request).await,
            ("POST", ["broker"]) => self.broker.answer(&request, &self.clock).await,
            ("GET", ["messages"]) => self.messages(&request),
            ("GET", ["deliveries", id]) => Reply::json(200, &json!(self.pusher.records_of(id))),
            ("GET", ["traces", id]) => Reply::json(200, &json!(self.traces.find(id))),
            ("GET", ["journal"]) => {
                let upstream = request.parameter("upstream");
                let mut entries = self.journal.entries();
                entries.retain(|entry| upstream.is_none_or(|name| entry.upstream == name));
                Reply::json(200, &json!(entries))
            }
            ("GET", [""]) => Reply::text(200, INDEX),
            _ => Reply::text(404, "no such path; GET / lists them\n"),
        }
    }

    fn token(&self, request: &Request) -> Reply {
        let audience = request.parameter("audience").unwrap_or(AUDIENCE);
        let email = request.parameter("email").unwrap_or(SERVICE_ACCOUNT);
        let ttl = request.parameter("ttl").and_then(|text| text.parse().ok());
        let ttl = ttl.map_or(DEFAULT_TTL, Duration::from_secs);
        Reply::text(200, self.issuer.token(audience, email, ttl))
    }

    fn publish(&self, request: &Request) -> Reply {
        let topic = request.parameter("topic").unwrap_or(TOPIC);
        let attributes: BTreeMap<&str, &str> = request
            .query
            .iter()
            .filter(|(name, _)| name != "topic" && name != "key")
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let attributes: Vec<_> = attributes.into_iter().collect();
        let key = request.parameter("key");
        match self
            .pusher
            .publish(topic, request.body.clone(), &attributes, key)
        {
            Ok(message_id) => Reply::json(200, &json!({"messageId": message_id})),
            Err(error) => Reply::text(400, format!("{error}\n")),
        }
    }

    fn messages(&self, request: &Request) -> Reply {
        let topic = request.parameter("topic").unwrap_or(TOPIC);
        let messages = self.pusher.messages(topic);
        let shown = messages.iter().map(|message| {
            json!({
                "messageId": message.message_id,
                "publishTime": super::rfc3339(message.publish_time),
                "orderingKey": message.ordering_key,
                "attributes": message.attributes,
                "data": String::from_utf8_lossy(&message.data),
            })
        });
        Reply::json(200, &shown.collect())
    }
}
