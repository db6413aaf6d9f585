//! Reads variables one by one and collects every problem, so that all are reported at once.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;

/// One environment variable the service knows.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// The value used when it is not set.
    pub default: Option<&'static str>,
    /// What the documentation shows when there is no default: `required`, `–`.
    pub absent: &'static str,
    /// What it means, for people.
    pub about: &'static str,
}

impl Variable {
    /// A variable that must be set.
    pub const fn required(name: &'static str, about: &'static str) -> Self {
        Self {
            name,
            default: None,
            absent: "required",
            about,
        }
    }

    /// A variable with a default.
    pub const fn defaulted(name: &'static str, default: &'static str, about: &'static str) -> Self {
        Self {
            name,
            default: Some(default),
            absent: "",
            about,
        }
    }

    /// A variable that may be left out, or is needed in some modes only.
    pub const fn optional(name: &'static str, absent: &'static str, about: &'static str) -> Self {
        Self {
            name,
            default: None,
            absent,
            about,
        }
    }
}

/// One thing wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The variable at fault.
    pub variable: &'static str,
    /// What is wrong and what to do; never the value.
    pub what: String,
}

/// Everything that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub Vec<Problem>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration is not usable:")?;
        for problem in &self.0 {
            write!(f, "\n  {}: {}", problem.variable, problem.what)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Reads variables and remembers what is wrong with them.
pub struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// Starts reading from `lookup`.
    pub fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            lookup,
            problems: Vec::new(),
        }
    }

    /// Ends reading.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem found.
    pub fn finish(self) -> Result<(), ConfigError> {
        if self.problems.is_empty() {
            Ok(())
        } else {
            Err(ConfigError(self.problems))
        }
    }

    /// Notes a problem with `variable`.
    pub fn problem(&mut self, variable: &'static str, what: impl Into<String>) {
        let problem = Problem {
            variable,
            what: what.into(),
        };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// Returns the value, its default, or `None`. Blank counts as not set.
    pub fn text(&mut self, variable: &Variable) -> Option<String> {
        let given = (self.lookup)(variable.name);
        if given
            .as_ref()
            .is_some_and(|value| value.contains('\u{FFFD}'))
        {
            self.problem(variable.name, "is not UTF-8 text");
        }
        given
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty())
            .or_else(|| variable.default.map(str::to_owned))
    }

    /// Returns the value, or notes that it is missing.
    pub fn required(&mut self, variable: &Variable) -> String {
        self.text(variable).unwrap_or_else(|| {
            self.problem(variable.name, format!("is not set ({})", variable.about));
            String::new()
        })
    }

    /// Returns a required secret.
    pub fn secret(&mut self, variable: &Variable) -> SecretString {
        self.required(variable).into()
    }

    /// Returns a required comma-separated list.
    pub fn list(&mut self, variable: &Variable) -> Vec<String> {
        let text = self.required(variable);
        let items: Vec<String> = text
            .split(',')
            .map(|item| item.trim().to_owned())
            .filter(|item| !item.is_empty())
            .collect();
        if items.is_empty() && !text.is_empty() {
            self.problem(variable.name, "holds no item");
        }
        items
    }

    /// Returns a number (or anything parsed) with a default.
    pub fn parsed<T: FromStr + Default>(&mut self, variable: &Variable, expected: &str) -> T {
        let text = self.required(variable);
        text.parse().unwrap_or_else(|_| {
            if !text.is_empty() {
                self.problem(variable.name, format!("must be {expected}"));
            }
            T::default()
        })
    }

    /// Returns a duration given in milliseconds, at least 1.
    pub fn millis(&mut self, variable: &Variable) -> Duration {
        Duration::from_millis(self.positive(variable, "milliseconds"))
    }

    /// Returns a whole number of at least 1.
    pub fn positive(&mut self, variable: &Variable, unit: &str) -> u64 {
        let number: u64 = self.parsed(variable, &format!("a whole number of {unit}"));
        let given = self
            .text(variable)
            .is_some_and(|text| text.parse::<u64>() == Ok(0));
        if given {
            self.problem(variable.name, format!("must be at least 1 ({unit})"));
        }
        number
    }

    /// Checks an absolute http(s) URL without credentials in it and returns it as given.
    pub fn url(&mut self, variable: &Variable, text: &str) -> String {
        let Ok(url) = url::Url::parse(text) else {
            self.problem(
                variable.name,
                "must be an absolute URL such as https://example.com/path",
            );
            return String::new();
        };
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            self.problem(variable.name, "must be an http or https URL with a host");
        } else if !url.username().is_empty() || url.password().is_some() {
            self.problem(variable.name, "must not hold a user name or password");
        } else if url.scheme() == "http" && !is_local(&url) {
            self.problem(
                variable.name,
                "must be https (plain http is for loopback only)",
            );
        }
        text.to_owned()
    }
}

/// Tells whether plain http to this host stays on the machine or in its own network.
fn is_local(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => {
            name == "localhost" || name.ends_with(".localhost") || !name.contains('.')
        }
        Some(url::Host::Ipv4(ip)) => ip.is_loopback() || ip.is_private(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}
