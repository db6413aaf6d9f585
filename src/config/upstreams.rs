//! The two upstreams of the reference service.

use secrecy::SecretString;

use super::reader::{ConfigError, Reader, Variable};

const HASURA_GRAPHQL_URL: Variable =
    Variable::required("HASURA_GRAPHQL_URL", "full URL of Hasura's `/v1/graphql`");
const HASURA_ADMIN_SECRET: Variable =
    Variable::required("HASURA_ADMIN_SECRET", "sent as `x-hasura-admin-secret`");
const CHARGEBEE_URL: Variable = Variable::optional(
    "CHARGEBEE_URL",
    "this or `CHARGEBEE_SITE` required",
    "base URL such as `https://acme.chargebee.com`",
);
const CHARGEBEE_SITE: Variable = Variable::optional(
    "CHARGEBEE_SITE",
    "this or `CHARGEBEE_URL` required",
    "site name such as `acme` or `acme-test`",
);
const CHARGEBEE_API_KEY: Variable =
    Variable::required("CHARGEBEE_API_KEY", "API key of the Chargebee site");
const CHARGEBEE_PRODUCT_CATALOG: Variable = Variable::defaulted(
    "CHARGEBEE_PRODUCT_CATALOG",
    "2",
    "product catalogue of the site: `2` (items) or `1` (plans and addons)",
);

pub(super) const VARIABLES: &[&Variable] = &[
    &HASURA_GRAPHQL_URL,
    &HASURA_ADMIN_SECRET,
    &CHARGEBEE_URL,
    &CHARGEBEE_SITE,
    &CHARGEBEE_API_KEY,
    &CHARGEBEE_PRODUCT_CATALOG,
];

/// The Hasura GraphQL endpoint.
#[derive(Debug, Clone)]
pub struct HasuraConfig {
    /// Full URL of `/v1/graphql` (`HASURA_GRAPHQL_URL`).
    pub graphql_url: String,
    /// Admin secret (`HASURA_ADMIN_SECRET`).
    pub admin_secret: SecretString,
}

impl HasuraConfig {
    /// Reads this section alone from the process environment, for commands that only ask Hasura.
    ///
    /// # Errors
    /// [`ConfigError`] names every missing or unusable variable at once; it never holds a value.
    pub fn from_env() -> Result<Self, ConfigError> {
        let mut reader = Reader::new(&super::environment);
        let config = Self::read(&mut reader);
        reader.finish()?;
        Ok(config)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let graphql_url = reader.required(&HASURA_GRAPHQL_URL);
        let graphql_url = if graphql_url.is_empty() {
            graphql_url
        } else {
            reader.url(&HASURA_GRAPHQL_URL, &graphql_url)
        };
        Self {
            graphql_url,
            admin_secret: reader.secret(&HASURA_ADMIN_SECRET),
        }
    }
}

/// Which set of Chargebee endpoints a site has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProductCatalog {
    /// Plans and addons: `POST /subscriptions/{id}`, `…/cancel`.
    V1,
    /// Items: `…/update_for_items`, `…/cancel_for_items`.
    V2,
}

/// The Chargebee site.
#[derive(Debug, Clone)]
pub struct ChargebeeConfig {
    /// Base URL without a path (`CHARGEBEE_URL`, or made of `CHARGEBEE_SITE`).
    pub url: String,
    /// API key (`CHARGEBEE_API_KEY`).
    pub api_key: SecretString,
    /// Endpoints to use (`CHARGEBEE_PRODUCT_CATALOG`).
    pub product_catalog: ProductCatalog,
}

impl ChargebeeConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let url = match (reader.text(&CHARGEBEE_URL), reader.text(&CHARGEBEE_SITE)) {
            (Some(url), _) => reader.url(&CHARGEBEE_URL, url.trim_end_matches('/')),
            (None, Some(site)) => {
                if !site.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
                    reader.problem(
                        CHARGEBEE_SITE.name,
                        "must be the site's name only, as `acme`",
                    );
                }
                format!("https://{site}.chargebee.com")
            }
            (None, None) => {
                reader.problem(CHARGEBEE_URL.name, "is not set (or set CHARGEBEE_SITE)");
                String::new()
            }
        };
        let product_catalog = match reader.required(&CHARGEBEE_PRODUCT_CATALOG).as_str() {
            "1" => ProductCatalog::V1,
            "2" => ProductCatalog::V2,
            _ => {
                reader.problem(CHARGEBEE_PRODUCT_CATALOG.name, "must be 1 or 2");
                ProductCatalog::V2
            }
        };
        Self {
            url,
            api_key: reader.secret(&CHARGEBEE_API_KEY),
            product_catalog,
        }
    }
}
