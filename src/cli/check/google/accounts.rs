//! The push account: does it exist, and may Pub/Sub make tokens in its name?

use serde::Deserialize;

use super::super::report::{Finding, word};
use super::iam::{MAKE_TOKENS, Policy, Project, Right};
use super::{Google, Unseen};
use crate::clients::http::segment;

#[derive(Deserialize)]
struct Account {
    #[serde(default)]
    disabled: bool,
}

/// Looks at the account a subscription signs its tokens with.
pub(super) async fn push_account(
    google: &Google,
    email: &str,
    project: &Project<'_>,
) -> Vec<Finding> {
    const CHECK: &str = "push account's state";
    // `name@project.iam.gserviceaccount.com`; Google's own default accounts are named otherwise.
    let (name, domain) = email.split_once('@').unwrap_or((email, ""));
    let home = domain.split('.').next().unwrap_or_default();
    let Ok(path) = segment(email).map(|it| format!("/projects/-/serviceAccounts/{it}")) else {
        return vec![Finding::skipped(CHECK, "it is not the name of an account")];
    };
    let command = match google.accounts.get::<Account>(home, &path).await {
        Ok(account) if !account.disabled => None,
        Ok(_) => Some((
            "is disabled",
            format!("gcloud iam service-accounts enable {}", word(email)),
        )),
        Err(Unseen::Absent) => Some((
            "does not exist",
            format!("gcloud iam service-accounts create {name} --project={home}"),
        )),
        Err(unseen) => return vec![unseen.skip(CHECK).of(email)],
    };
    if let Some((found, command)) = command {
        let advice = "Pub/Sub cannot make tokens for it and delivers nothing";
        return vec![
            Finding::failed(CHECK, found, advice)
                .of(email)
                .mend(command),
        ];
    }
    let agent = project.pubsub_agent().await;
    let right = Right {
        check: "Pub/Sub's right to make tokens",
        subject: email,
        who: &agent,
        name: "Pub/Sub's service agent",
        roles: MAKE_TOKENS,
        breaks: "Pub/Sub cannot make push tokens and delivers nothing",
        grant: format!(
            "gcloud iam service-accounts add-iam-policy-binding {}",
            word(email)
        ),
    };
    let policy: Result<Policy, Unseen> = google
        .accounts
        .post(home, &format!("{path}:getIamPolicy"))
        .await;
    vec![
        Finding::ok(CHECK, "exists and is enabled").of(email),
        right.judge(&policy, project).await,
    ]
}
