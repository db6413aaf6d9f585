//! Google Cloud: subscriptions, dead letters, the Cloud Run service, and everybody's rights.

mod accounts;
mod api;
mod dead_letters;
mod iam;
mod service;
mod subscription;

use std::collections::BTreeSet;

use clap::Args;
use futures_util::future::join_all;
use serde::Deserialize;
use serde::de::IgnoredAny;

pub(super) use self::api::Google;
use self::api::Unseen;
pub(super) use self::dead_letters::keep;
use self::iam::Project;
pub(super) use self::service::Service;
pub(super) use self::subscription::short;
use self::subscription::{Subscription, Wanted, full_topic, project_of};
use super::report::{Finding, word};
use crate::config::Config;

pub(super) use self::service::{SECRETS, differences, unusable};

/// Where Google's APIs are; tests put stand-ins there.
#[derive(Debug, Args)]
pub(super) struct Places {
    #[arg(
        long = "pubsub-url",
        hide = true,
        default_value = "https://pubsub.googleapis.com/v1"
    )]
    pubsub: String,
    #[arg(long = "pubsub-rights-url", hide = true)]
    pubsub_rights: Option<String>,
    #[arg(
        long = "run-url",
        hide = true,
        default_value = "https://run.googleapis.com/v2"
    )]
    run: String,
    #[arg(
        long = "accounts-url",
        hide = true,
        default_value = "https://iam.googleapis.com/v1"
    )]
    accounts: String,
    #[arg(
        long = "projects-url",
        hide = true,
        default_value = "https://cloudresourcemanager.googleapis.com/v3"
    )]
    projects: String,
}

/// What to look at.
#[derive(Debug, Args)]
pub(super) struct Names {
    /// Push subscriptions that feed the service, short or in full, comma-separated. Without it:
    /// those of the project that push to the service's address or with its audience.
    #[arg(
        long = "subscription",
        env = "PUSH_SUBSCRIPTION",
        value_delimiter = ','
    )]
    subscriptions: Vec<String>,
    /// The Cloud Run service. What its configuration says counts for the subscription, and stands
    /// in for variables that are not set here.
    #[arg(long, env = "K_SERVICE")]
    service: Option<String>,
    /// Region of the Cloud Run service.
    #[arg(long, env = "CLOUD_RUN_REGION")]
    region: Option<String>,
    /// Project of subscription and service.
    #[arg(long, env = "GOOGLE_CLOUD_PROJECT")]
    project: Option<String>,
}

impl Names {
    /// Returns the project, without which nothing can be looked for.
    pub(super) fn project(&self) -> Option<&str> {
        given(self.project.as_ref())
    }

    /// Reads the Cloud Run service; the row says why when it cannot be read.
    pub(super) async fn read_service(&self, google: &Google) -> Result<Service, Finding> {
        const CHECK: &str = "Cloud Run";
        let Some(project) = self.project() else {
            return Err(Finding::skipped(CHECK, "GOOGLE_CLOUD_PROJECT is not set"));
        };
        let (name, region) = (given(self.service.as_ref()), given(self.region.as_ref()));
        let (Some(name), Some(region)) = (name, region) else {
            let found = "name the service and its region (--service, --region)";
            let command = format!("gcloud run services list --project={project}");
            return Err(Finding::skipped(CHECK, found).mend(command));
        };
        match Service::read(google, project, region, name).await {
            Ok(service) => Ok(service),
            Err(Unseen::Absent) => {
                let advice = "there is nothing that could take events, or it is called otherwise";
                let command = format!("gcloud run services list --project={project}");
                let finding = Finding::failed(CHECK, "does not exist", advice).mend(command);
                Err(finding.of(name))
            }
            Err(unseen) => Err(unseen.skip(CHECK).of(name)),
        }
    }
}

/// Takes a value that is not blank.
fn given(text: Option<&String>) -> Option<&str> {
    text.map(|text| text.trim()).filter(|text| !text.is_empty())
}

/// Looks at everything on Google Cloud. `config` is the service's own configuration.
pub(super) async fn all(
    google: &Google,
    names: &Names,
    config: &Config,
    service: Option<&Service>,
) -> Vec<Finding> {
    let Some(id) = names.project().or(config.bus.project.as_deref()) else {
        let why = "GOOGLE_CLOUD_PROJECT is not set";
        return vec![Finding::skipped("push subscription", why)];
    };
    let project = Project::new(google, id);
    let mut findings = Vec::new();
    let wanted = Wanted {
        config,
        service,
        project: id,
    };
    let (subscriptions, unseen) = subscriptions(google, names, &wanted).await;
    findings.extend(unseen);
    let mut accounts = BTreeSet::new();
    let mut dead_letter_topics = BTreeSet::from([full_topic(&config.bus.dead_letter_topic, id)]);
    for subscription in &subscriptions {
        let home = project_of(&subscription.name).unwrap_or(id);
        findings.extend(subscription::judge(subscription, &wanted));
        findings.extend(service.and_then(|service| service::ingress(service, home)));
        findings.extend(dead_letters::rights(google, subscription, &project).await);
        accounts.extend(
            subscription
                .push_config
                .account()
                .filter(|it| !it.is_empty()),
        );
        let policy = subscription.dead_letter_policy.as_ref();
        let topic = policy.map(|policy| policy.dead_letter_topic.clone());
        dead_letter_topics.extend(topic.filter(|it| it.starts_with("projects/")));
    }
    let events = full_topic(&config.bus.events_topic, id);
    findings.push(topic(google, &events).await);
    let topics = dead_letter_topics.iter();
    let kept = join_all(topics.map(|topic| dead_letters::kept(google, topic))).await;
    findings.extend(kept.into_iter().flatten());
    for account in accounts {
        findings.extend(accounts::push_account(google, account, &project).await);
    }
    if let Some(service) = service {
        findings.extend(service::judge(service, config));
        findings.extend(service::door(google, service, config, &project).await);
        if let Some(account) = service.account() {
            for topic in [&config.bus.events_topic, &config.bus.dead_letter_topic] {
                let topic = full_topic(topic, id);
                let right = dead_letters::publisher(google, &topic, account, &project);
                findings.push(right.await);
            }
        }
    }
    findings
}

/// Looks whether the topic of downstream events exists.
async fn topic(google: &Google, full: &str) -> Finding {
    const CHECK: &str = "events topic";
    let (project, name) = (project_of(full).unwrap_or_default(), short(full));
    let found: Result<IgnoredAny, Unseen> = google.pubsub.get(project, &format!("/{full}")).await;
    let finding = match found {
        Ok(_) => Finding::ok(CHECK, "exists"),
        Err(Unseen::Absent) => {
            let advice = "the service answers 503 to every event it has something to publish for";
            let command = format!("gcloud pubsub topics create {name} --project={project}");
            Finding::failed(CHECK, "does not exist", advice).mend(command)
        }
        Err(unseen) => unseen.skip(CHECK),
    };
    finding.of(name)
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    subscriptions: Vec<Subscription>,
}

/// Reads the subscriptions that were named, or finds them; rows say which could not be read.
async fn subscriptions(
    google: &Google,
    names: &Names,
    wanted: &Wanted<'_>,
) -> (Vec<Subscription>, Vec<Finding>) {
    const CHECK: &str = "subscription";
    let named = names.subscriptions.iter().map(|name| name.trim());
    let named: Vec<&str> = named.filter(|name| !name.is_empty()).collect();
    let id = wanted.project;
    if named.is_empty() {
        let path = format!("/projects/{id}/subscriptions?pageSize=1000");
        let page: Page = match google.pubsub.get(id, &path).await {
            Ok(page) => page,
            Err(unseen) => return (Vec::new(), vec![unseen.skip(CHECK)]),
        };
        let found = page.subscriptions.into_iter();
        let found: Vec<Subscription> = found.filter(|it| feeds(it, wanted)).collect();
        if found.is_empty() {
            let advice = "nothing reaches the service, or under another name: give --subscription";
            let found = "none pushes to the service";
            let command = create("SUBSCRIPTION", wanted);
            let finding = Finding::failed(CHECK, found, advice).mend(command);
            return (Vec::new(), vec![finding]);
        }
        return (found, Vec::new());
    }
    let (mut found, mut unseen) = (Vec::new(), Vec::new());
    for name in named {
        let full = if name.starts_with("projects/") {
            name.to_owned()
        } else {
            format!("projects/{id}/subscriptions/{name}")
        };
        let home = project_of(&full).unwrap_or(id);
        match google.pubsub.get(home, &format!("/{full}")).await {
            Ok(subscription) => found.push(subscription),
            Err(Unseen::Absent) => unseen.push(
                Finding::failed(CHECK, "does not exist", "nothing reaches the service")
                    .of(short(&full))
                    .mend(create(short(&full), wanted)),
            ),
            Err(why) => unseen.push(why.skip(CHECK).of(short(&full))),
        }
    }
    (found, unseen)
}

/// Tells whether a subscription pushes to the service, and not to one revision of it only.
fn feeds(subscription: &Subscription, wanted: &Wanted<'_>) -> bool {
    let push = &subscription.push_config;
    let Some(endpoint) = push.endpoint() else {
        return false;
    };
    let tagged = endpoint.host_str().is_some_and(|host| host.contains("---"));
    let audiences = &wanted.config.push_auth.audiences;
    let to_us = wanted
        .service
        .is_some_and(|service| service.serves(&endpoint));
    let for_us = push
        .audience()
        .is_some_and(|it| audiences.iter().any(|ours| ours == it));
    !tagged && (to_us || for_us)
}

/// Writes the command that makes a push subscription as the service expects it.
fn create(name: &str, wanted: &Wanted<'_>) -> String {
    let config = wanted.config;
    let first = |of: &[String]| word(of.first().map_or("", String::as_str));
    let uri = wanted.service.and_then(|service| service.uri.as_deref());
    format!(
        "gcloud pubsub subscriptions create {name} --topic=TOPIC --project={project} \
         --push-endpoint={uri}/push --push-auth-service-account={account} \
         --push-auth-token-audience={audience} --ack-deadline={deadline} --min-retry-delay=10s \
         --max-retry-delay=600s --dead-letter-topic={dead_letters} --max-delivery-attempts=100 \
         --expiration-period=never",
        project = wanted.project,
        uri = uri.unwrap_or("https://SERVICE"),
        account = first(&config.push_auth.service_accounts),
        audience = first(&config.push_auth.audiences),
        deadline = config.work.ack_deadline.as_secs(),
        dead_letters = word(&full_topic(&config.bus.dead_letter_topic, wanted.project)),
    )
}
