//! Who may do what: policies of resources and of the project above them.

use serde::Deserialize;
use tokio::sync::OnceCell;

use super::super::report::{Finding, word};
use super::api::{Api, Google, Unseen};

/// Roles that hold `pubsub.topics.publish`, the narrowest first.
pub(super) const PUBLISH: &[&str] = &[
    "roles/pubsub.publisher",
    "roles/pubsub.editor",
    "roles/pubsub.admin",
    "roles/editor",
    "roles/owner",
];
/// Roles that hold `pubsub.subscriptions.consume`.
pub(super) const ACKNOWLEDGE: &[&str] = &[
    "roles/pubsub.subscriber",
    "roles/pubsub.editor",
    "roles/pubsub.admin",
    "roles/editor",
    "roles/owner",
];
/// Roles that hold `run.routes.invoke`.
pub(super) const INVOKE: &[&str] = &[
    "roles/run.invoker",
    "roles/run.servicesInvoker",
    "roles/run.admin",
    "roles/editor",
    "roles/owner",
];
/// Roles that hold `iam.serviceAccounts.getOpenIdToken`. Pub/Sub's own agent role, which new
/// projects give on the whole project, is one of them.
pub(super) const MAKE_TOKENS: &[&str] = &[
    "roles/iam.serviceAccountOpenIdTokenCreator",
    "roles/iam.serviceAccountTokenCreator",
    "roles/pubsub.serviceAgent",
];

/// An IAM policy: <https://cloud.google.com/iam/docs/reference/rest/v1/Policy>.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Policy {
    #[serde(default)]
    bindings: Vec<Binding>,
}

#[derive(Debug, Clone, Deserialize)]
struct Binding {
    role: String,
    #[serde(default)]
    members: Vec<String>,
}

impl Policy {
    /// Tells whether one of `roles` is given to `who`.
    pub(super) fn gives(&self, who: &Member, roles: &[&str]) -> bool {
        let mut bindings = self.bindings.iter();
        bindings.any(|it| roles.contains(&&*it.role) && it.members.iter().any(|m| who.is(m)))
    }

    /// Tells whether `who` has a role made by the project or its organisation, whose permissions
    /// are not looked into.
    fn has_own_role(&self, who: &Member) -> bool {
        let own = |role: &str| role.starts_with("projects/") || role.starts_with("organizations/");
        let mut bindings = self.bindings.iter();
        bindings.any(|it| own(&it.role) && it.members.iter().any(|m| who.is(m)))
    }
}

/// Somebody with rights.
#[derive(Debug, Clone)]
pub(super) enum Member {
    Account(String),
    /// Pub/Sub itself, in the name of a project, whose number is in its name.
    PubsubAgent {
        project: String,
        number: Option<String>,
    },
    /// Anybody, signed in or not.
    Anybody,
}

impl Member {
    fn is(&self, member: &str) -> bool {
        match self {
            Self::Account(email) => member.strip_prefix("serviceAccount:") == Some(email),
            Self::PubsubAgent { number, .. } => {
                let any = member.strip_prefix("serviceAccount:service-");
                let theirs = any.and_then(|rest| rest.split_once("@gcp-sa-pubsub."));
                theirs.is_some_and(|(it, _)| number.as_ref().is_none_or(|number| number == it))
            }
            Self::Anybody => matches!(member, "allUsers" | "allAuthenticatedUsers"),
        }
    }

    fn for_command(&self) -> String {
        let agent = |number: &str| {
            format!("serviceAccount:service-{number}@gcp-sa-pubsub.iam.gserviceaccount.com")
        };
        match self {
            Self::Account(email) => word(&format!("serviceAccount:{email}")),
            Self::PubsubAgent {
                number: Some(number),
                ..
            } => agent(number),
            Self::PubsubAgent { project, .. } => {
                let number = format!(
                    "$(gcloud projects describe {project} --format='value(projectNumber)')"
                );
                format!("\"{}\"", agent(&number))
            }
            Self::Anybody => "allUsers".to_owned(),
        }
    }
}

/// A project's number and policy, each read once.
pub(super) struct Project<'a> {
    pub(super) id: String,
    api: &'a Api,
    number: OnceCell<Option<String>>,
    policy: OnceCell<Result<Policy, Unseen>>,
}

#[derive(Deserialize)]
struct Described {
    name: String,
}

impl<'a> Project<'a> {
    pub(super) fn new(google: &'a Google, id: &str) -> Self {
        Self {
            id: id.to_owned(),
            api: &google.projects,
            number: OnceCell::new(),
            policy: OnceCell::new(),
        }
    }

    /// Returns Pub/Sub's own account in this project.
    pub(super) async fn pubsub_agent(&self) -> Member {
        let number = self.number.get_or_init(|| async {
            let path = format!("/projects/{}", self.id);
            let found: Described = self.api.get(&self.id, &path).await.ok()?;
            Some(found.name.strip_prefix("projects/")?.to_owned())
        });
        Member::PubsubAgent {
            project: self.id.clone(),
            number: number.await.clone(),
        }
    }

    async fn policy(&self) -> &Result<Policy, Unseen> {
        let path = format!("/projects/{}:getIamPolicy", self.id);
        let read = || async { self.api.post(&self.id, &path).await };
        self.policy.get_or_init(read).await
    }
}

/// A right somebody should have on something.
pub(super) struct Right<'a> {
    pub(super) check: &'a str,
    /// What it is a right on, by its short name.
    pub(super) subject: &'a str,
    pub(super) who: &'a Member,
    /// How `who` is called in a sentence.
    pub(super) name: &'a str,
    pub(super) roles: &'a [&'a str],
    /// What breaks without it.
    pub(super) breaks: &'a str,
    /// `gcloud pubsub topics add-iam-policy-binding NAME …`, without member and role.
    pub(super) grant: String,
}

impl Right<'_> {
    /// Judges by the resource's own policy and, if that does not give it, by that of the project
    /// the resource is in.
    pub(super) async fn judge(
        &self,
        policy: &Result<Policy, Unseen>,
        project: &Project<'_>,
    ) -> Finding {
        let policy = match policy {
            Ok(policy) => policy,
            Err(unseen) => return unseen.skip(self.check).of(self.subject),
        };
        let (name, role) = (self.name, self.roles[0]);
        let held = || Finding::ok(self.check, format!("{name} has it")).of(self.subject);
        if policy.gives(self.who, self.roles) {
            return held();
        }
        let above = project.policy().await;
        let own_role = |policy: &Policy| policy.has_own_role(self.who);
        let command = format!(
            "{} --member={} --role={role}",
            self.grant,
            self.who.for_command()
        );
        let finding = match above {
            Ok(above) if above.gives(self.who, self.roles) => return held(),
            Ok(above) if !own_role(policy) && !own_role(above) => Finding::failed(
                self.check,
                format!("{name} does not have {role}"),
                self.breaks,
            ),
            Ok(_) => Finding::warning(
                self.check,
                format!("{name} has a role of your own, which is not looked into"),
                format!("if it does not hold what {role} does: {}", self.breaks),
            ),
            Err(_) => Finding::warning(
                self.check,
                format!("{name} does not have {role} here, maybe on the project"),
                format!("if not there either: {}", self.breaks),
            ),
        };
        finding.of(self.subject).mend(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(role: &str, member: &str) -> Policy {
        Policy {
            bindings: vec![Binding {
                role: role.to_owned(),
                members: vec![member.to_owned()],
            }],
        }
    }

    #[test]
    fn only_the_agent_of_this_project_counts_once_its_number_is_known() {
        let theirs = "serviceAccount:service-2@gcp-sa-pubsub.iam.gserviceaccount.com";
        let policy = policy("roles/pubsub.publisher", theirs);
        let gives = |number: Option<&str>| {
            let agent = Member::PubsubAgent {
                project: "p-1".to_owned(),
                number: number.map(str::to_owned),
            };
            policy.gives(&agent, PUBLISH)
        };

        assert!(gives(Some("2")) && gives(None));
        assert!(!gives(Some("1")) && !gives(Some("22")));
    }

    #[test]
    fn a_deleted_account_and_a_lesser_role_give_nothing() {
        let push = Member::Account("push@p-1.iam.gserviceaccount.com".to_owned());
        let gives = |role, member| policy(role, member).gives(&push, INVOKE);

        assert!(gives(
            "roles/run.invoker",
            "serviceAccount:push@p-1.iam.gserviceaccount.com"
        ));
        assert!(!gives(
            "roles/run.invoker",
            "deleted:serviceAccount:push@p-1.iam.gserviceaccount.com?uid=1"
        ));
        assert!(!gives(
            "roles/run.viewer",
            "serviceAccount:push@p-1.iam.gserviceaccount.com"
        ));
    }
}
