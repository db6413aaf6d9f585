//! Where values come from: this environment first, then what the Cloud Run service is told.

use std::collections::BTreeMap;

use super::google::{SECRETS, Service};
use super::report::{Finding, word};
use crate::config::{Config, ConfigError};

/// Stands for a secret that is only in Secret Manager. Never sent anywhere.
const ELSEWHERE: &str = "only-the-service-knows";

/// The configuration to ask upstreams with.
pub(super) struct Settings {
    pub(super) config: Config,
    /// The service runs somewhere else: our own rights say nothing about its.
    pub(super) is_remote: bool,
    /// Variables whose value only the service has, with the name of the secret.
    elsewhere: BTreeMap<String, String>,
}

impl Settings {
    /// Reads this environment, and the service's for what is not set here.
    ///
    /// # Errors
    /// What is wrong with both together.
    pub(super) fn read(
        here: &dyn Fn(&str) -> Option<String>,
        service: Option<&Service>,
    ) -> Result<Self, ConfigError> {
        let (plain, secret) = service.map(Service::environment).unwrap_or_default();
        let ours = |name: &str| here(name).filter(|value| !value.trim().is_empty());
        let is_ours = |name: &str| ours(name).is_some();
        // One of the two is enough, and ours goes first.
        let masked = |name: &str| name == "CHARGEBEE_URL" && is_ours("CHARGEBEE_SITE");
        let config = Config::from_lookup(&|name| {
            ours(name)
                .or_else(|| Some((*plain.get(name)?).to_owned()).filter(|_| !masked(name)))
                .or_else(|| is_secret(name, &secret).then(|| ELSEWHERE.to_owned()))
        })?;
        let elsewhere = secret
            .iter()
            .filter(|(name, _)| is_secret(name, &secret) && !is_ours(name));
        let elsewhere = elsewhere.map(|(name, secret)| ((*name).to_owned(), (*secret).to_owned()));
        Ok(Self {
            config,
            is_remote: service.is_some() && !is_ours("K_REVISION"),
            elsewhere: elsewhere.collect(),
        })
    }

    /// Makes the row of a question that needs a secret which is not here.
    pub(super) fn skip(&self, check: &str, variable: &str) -> Option<Finding> {
        let secret = self.elsewhere.get(variable)?;
        let (project, name) = match secret.split('/').collect::<Vec<_>>()[..] {
            ["projects", project, "secrets", name] => (Some(project), name),
            _ => (self.config.bus.project.as_deref(), secret.as_str()),
        };
        let project = project.map_or_else(String::new, |it| format!(" --project={}", word(it)));
        let secret = word(name);
        let found = format!("{variable} is in Secret Manager only");
        Some(Finding::skipped(check, found).mend(format!(
            "export {variable}=\"$(gcloud secrets versions access latest --secret={secret}{project})\""
        )))
    }
}

/// Reads what the service itself is told.
///
/// # Errors
/// What is wrong with it.
pub(super) fn of_service(service: &Service) -> Result<Config, ConfigError> {
    let (plain, secret) = service.environment();
    Config::from_lookup(&|name| {
        let plain = plain.get(name).map(|value| (*value).to_owned());
        plain.or_else(|| is_secret(name, &secret).then(|| ELSEWHERE.to_owned()))
    })
}

/// Writes the command that sets a variable: the service's, where it is known.
pub(super) fn set(service: Option<&Service>, variable: &str, value: &str) -> String {
    match service {
        Some(service) => service.set(variable, value),
        None => format!("export {variable}={}", word(value)),
    }
}

fn is_secret(name: &str, secret: &BTreeMap<&str, &str>) -> bool {
    SECRETS.contains(&name) && secret.contains_key(name)
}
