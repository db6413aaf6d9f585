//! Chargebee: which kind of site is it, does the key belong to it, which product catalogue has it?

use std::sync::Arc;

use secrecy::ExposeSecret;
use url::Url;

use super::google::Service;
use super::report::Finding;
use super::settings::set;
use crate::clients::chargebee::Chargebee;
use crate::clock::SharedClock;
use crate::config::{ChargebeeConfig, ProductCatalog};
use crate::error::Error;
use crate::telemetry::Metrics;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Test,
    Live,
}

/// Compares key and site by their names: `acme-test.chargebee.com` takes keys that begin with
/// `test_`, `acme.chargebee.com` those with `live_`.
pub(super) fn site(config: &ChargebeeConfig) -> Finding {
    const CHECK: &str = "Chargebee site";
    let url = Url::parse(&config.url).ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
    let site = host.split_once(".chargebee.").map(|(site, _)| site);
    let site = site.map(|site| match site.ends_with("-test") {
        true => Kind::Test,
        false => Kind::Live,
    });
    let key = config.api_key.expose_secret();
    let key = match key {
        key if key.starts_with("test_") => Some(Kind::Test),
        key if key.starts_with("live_") => Some(Kind::Live),
        _ => None,
    };
    match (site, key) {
        (Some(site), Some(key)) if site != key => {
            let found = match site {
                Kind::Test => "a test site with the key of a live one",
                Kind::Live => "a live site with the key of a test one",
            };
            let advice =
                "every call is refused; take the key of this site, or the site of this key";
            Finding::failed(CHECK, found, advice).mend("scripts/set-secret.sh chargebee-api-key")
        }
        (Some(Kind::Test), _) => Finding::ok(CHECK, "a test site: nobody is billed"),
        (Some(Kind::Live), _) => Finding::ok(CHECK, "a live site: customers are billed"),
        (None, _) => Finding::ok(CHECK, "not Chargebee's own address, a stand-in"),
    }
}

/// Asks for something that only the configured product catalogue has.
pub(super) async fn catalogue(
    config: &ChargebeeConfig,
    service: Option<&Service>,
    clock: &SharedClock,
    metrics: &Arc<Metrics>,
) -> Finding {
    const CHECK: &str = "Chargebee catalogue";
    let (ours, other) = match config.product_catalog {
        ProductCatalog::V1 => (1, "2"),
        ProductCatalog::V2 => (2, "1"),
    };
    let Ok(client) = Chargebee::new(config, Arc::clone(metrics), Arc::clone(clock)) else {
        return Finding::skipped(CHECK, "no client can be made");
    };
    match client.check_catalog().await {
        Ok(()) => Finding::ok(CHECK, format!("the site has product catalogue {ours}")),
        Err(Error::Rejected { code, .. }) if code.as_str() == "configuration_incompatible" => {
            let found = format!("the site does not have product catalogue {ours}");
            let advice = "every change of a subscription is refused and ends as a dead letter";
            Finding::failed(CHECK, found, advice).mend(set(
                service,
                "CHARGEBEE_PRODUCT_CATALOG",
                other,
            ))
        }
        // Also a key that may not read products, and a site that says it in other words.
        Err(error) => Finding::skipped(CHECK, format!("cannot be told ({})", error.code())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    fn state(url: &str, key: &str) -> State {
        let config = ChargebeeConfig {
            url: url.to_owned(),
            api_key: key.to_owned().into(),
            product_catalog: ProductCatalog::V2,
        };
        site(&config).state
    }

    #[test]
    fn a_key_of_the_other_kind_of_site_is_found_without_asking() {
        let (test, live) = (
            "https://acme-test.chargebee.com",
            "https://acme.chargebee.com",
        );

        assert_eq!(state(test, "test_x"), State::Ok);
        assert_eq!(state(live, "live_x"), State::Ok);
        assert_eq!(state(live, "test_x"), State::Failed);
        assert_eq!(state(test, "live_x"), State::Failed);
        assert_eq!(state(live, "unknown"), State::Ok);
        assert_eq!(state("http://127.0.0.1:1", "test_x"), State::Ok);
    }
}
