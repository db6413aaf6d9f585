//! Where events leave the service.

use super::reader::{Reader, Variable};

const EVENT_BUS_TYPE: Variable = Variable::defaulted(
    "EVENT_BUS_TYPE",
    "pubsub",
    "`pubsub`, or `memory` in tests and `dev` (keeps nothing over a restart)",
);
const GOOGLE_CLOUD_PROJECT: Variable = Variable::optional(
    "GOOGLE_CLOUD_PROJECT",
    "required with `pubsub`",
    "project of the topics, also used to link log lines to traces",
);
const EVENTS_TOPIC: Variable = Variable::optional(
    "EVENTS_TOPIC",
    "required with `pubsub`",
    "topic for downstream events: a short name or `projects/…/topics/…`",
);
const DEAD_LETTER_TOPIC: Variable = Variable::optional(
    "DEAD_LETTER_TOPIC",
    "required with `pubsub`, unless there is a database",
    "topic for events that will not be tried again, give it a subscription; with a database they \
     are in a table, and on the topic only when it is set",
);
const PUBSUB_EMULATOR_HOST: Variable = Variable::optional(
    "PUBSUB_EMULATOR_HOST",
    "–",
    "`host:port` of the Pub/Sub emulator, as in Google's own clients",
);

pub(super) const VARIABLES: &[&Variable] = &[
    &EVENT_BUS_TYPE,
    &GOOGLE_CLOUD_PROJECT,
    &EVENTS_TOPIC,
    &DEAD_LETTER_TOPIC,
    &PUBSUB_EMULATOR_HOST,
];

/// Which broker takes the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusType {
    /// Google Cloud Pub/Sub.
    Pubsub,
    /// This process's memory.
    Memory,
}

impl BusType {
    /// Returns the name in OpenTelemetry's conventions
    /// (<https://opentelemetry.io/docs/specs/semconv/registry/attributes/messaging/>).
    pub fn messaging_system(self) -> &'static str {
        match self {
            Self::Pubsub => "gcp_pubsub",
            Self::Memory => "memory",
        }
    }
}

/// Where events go out.
#[derive(Debug, Clone)]
pub struct BusConfig {
    /// Which broker (`EVENT_BUS_TYPE`).
    pub bus_type: BusType,
    /// Project of the topics (`GOOGLE_CLOUD_PROJECT`).
    pub project: Option<String>,
    /// Topic for downstream events (`EVENTS_TOPIC`).
    pub events_topic: String,
    /// Topic for dead letters (`DEAD_LETTER_TOPIC`).
    pub dead_letter_topic: String,
    /// `host:port` of the emulator (`PUBSUB_EMULATOR_HOST`).
    pub emulator_host: Option<String>,
}

impl BusConfig {
    pub(super) fn read(reader: &mut Reader<'_>, durable: bool) -> Self {
        let bus_type = bus_type(reader);
        let needed = |reader: &mut Reader<'_>, variable: &Variable, fallback: &str| match reader
            .text(variable)
        {
            Some(text) => text,
            None if bus_type == BusType::Pubsub => reader.required(variable),
            None => fallback.to_owned(),
        };
        let events_topic = needed(reader, &EVENTS_TOPIC, "hookyard-events");
        let dead_letter_topic = if durable {
            // The table keeps them; the topic is for those who want them there as well.
            reader.text(&DEAD_LETTER_TOPIC).unwrap_or_default()
        } else {
            needed(reader, &DEAD_LETTER_TOPIC, "hookyard-dead-letters")
        };
        let project = needed(reader, &GOOGLE_CLOUD_PROJECT, "");
        Self {
            bus_type,
            project: Some(project).filter(|project| !project.is_empty()),
            events_topic,
            dead_letter_topic,
            emulator_host: emulator_host(reader),
        }
    }

    /// Reads which broker to use by a role that has one topic only.
    pub(super) fn read_with_topic(reader: &mut Reader<'_>, topic: &str) -> Self {
        let bus_type = bus_type(reader);
        let project = reader.text(&GOOGLE_CLOUD_PROJECT);
        let short = !topic.is_empty() && !topic.starts_with("projects/");
        if bus_type == BusType::Pubsub && project.is_none() && short {
            reader.problem(
                GOOGLE_CLOUD_PROJECT.name,
                "is not set, and the topic's name does not start with `projects/`",
            );
        }
        Self {
            bus_type,
            project,
            events_topic: topic.to_owned(),
            dead_letter_topic: topic.to_owned(),
            emulator_host: emulator_host(reader),
        }
    }
}

fn bus_type(reader: &mut Reader<'_>) -> BusType {
    match reader.required(&EVENT_BUS_TYPE).as_str() {
        "pubsub" => BusType::Pubsub,
        "memory" => BusType::Memory,
        _ => {
            reader.problem(EVENT_BUS_TYPE.name, "must be pubsub or memory");
            BusType::Memory
        }
    }
}

fn emulator_host(reader: &mut Reader<'_>) -> Option<String> {
    reader.text(&PUBSUB_EMULATOR_HOST).map(|host| {
        host.trim_start_matches("http://")
            .trim_end_matches('/')
            .to_owned()
    })
}
