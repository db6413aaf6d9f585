//! The parts of Chargebee's resources that are read and written here.

use std::fmt;

use serde::Deserialize;

use super::form::Form;

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Subscription {
    /// Its id.
    pub id: String,
    /// `future`, `in_trial`, `active`, `non_renewing`, `paused`, `cancelled`, `transferred`, or a
    /// word Chargebee adds later.
    pub status: String,
    /// The custom field that carries the contract's id; absent until it is set.
    #[serde(default)]
    pub cf_contract_id: Option<String>,
    /// The customer it belongs to.
    #[serde(default)]
    pub customer_id: Option<String>,
}

impl Subscription {
    /// Tells whether it has ended or will end with its term.
    pub fn is_ending(&self) -> bool {
        matches!(self.status.as_str(), "non_renewing" | "cancelled")
    }
}

/// A customer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Customer {
    /// Its id.
    pub id: String,
    /// Whether it was deleted in Chargebee, which keeps the record.
    #[serde(default)]
    pub deleted: bool,
    /// What is known about it.
    #[serde(flatten)]
    pub details: CustomerDetails,
}

impl Customer {
    /// Tells whether every detail in `wanted` is there already.
    pub fn has(&self, wanted: &CustomerDetails) -> bool {
        let ours = self.details.fields();
        let pairs = wanted.fields().into_iter().zip(ours);
        // Chargebee leaves out what is empty.
        pairs.into_iter().all(|((_, wanted), (_, ours))| {
            wanted.is_none_or(|wanted| wanted == ours.unwrap_or_default())
        })
    }
}

/// What is told to Chargebee about a customer. `None` leaves a detail as it is, an empty text
/// removes it.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CustomerDetails {
    /// Given name.
    pub first_name: Option<String>,
    /// Family name.
    pub last_name: Option<String>,
    /// Mail address.
    pub email: Option<String>,
    /// Company.
    pub company: Option<String>,
    /// Telephone number.
    pub phone: Option<String>,
}

impl fmt::Debug for CustomerDetails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.fields().into_iter().filter(|(_, text)| text.is_some());
        f.write_str("CustomerDetails")?;
        f.debug_set().entries(known.map(|(name, _)| name)).finish()
    }
}

impl CustomerDetails {
    pub(super) fn add_to(&self, form: Form) -> Form {
        self.fields()
            .into_iter()
            .fold(form, |form, (name, text)| form.optional(name, text))
    }

    fn fields(&self) -> [(&'static str, Option<&str>); 5] {
        [
            ("first_name", self.first_name.as_deref()),
            ("last_name", self.last_name.as_deref()),
            ("email", self.email.as_deref()),
            ("company", self.company.as_deref()),
            ("phone", self.phone.as_deref()),
        ]
    }
}

#[derive(Deserialize)]
pub(super) struct SubscriptionReply {
    pub(super) subscription: Subscription,
}

#[derive(Deserialize)]
pub(super) struct CustomerReply {
    pub(super) customer: Customer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_customer_is_debugged_without_what_is_known_about_it() {
        let customer: Customer =
            serde_json::from_str(r#"{"id": "c1", "email": "a@example.com", "vip": 1}"#).unwrap();

        let text = format!("{customer:?}");

        assert!(text.contains("c1") && text.contains("email"), "{text}");
        assert!(!text.contains("example.com"), "{text}");
    }

    #[test]
    fn a_detail_to_be_removed_is_there_until_it_is_gone() {
        let details = |json| serde_json::from_str::<CustomerDetails>(json).unwrap();
        let customer: Customer =
            serde_json::from_str(r#"{"id": "c1", "email": "a@example.com"}"#).unwrap();

        assert!(customer.has(&details(r#"{"email": "a@example.com", "company": ""}"#)));
        assert!(customer.has(&CustomerDetails::default()));
        assert!(!customer.has(&details(r#"{"email": ""}"#)));
    }
}
