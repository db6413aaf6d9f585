//! What came beside the bytes of a delivery, as it is kept with them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Micros, micros_of, time_of};
use crate::event::Delivery;

/// A [`Delivery`] without its bytes, as JSON in a column.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryNote {
    /// Pub/Sub's id of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// When it was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish_time: Option<Micros>,
    /// Which delivery of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The ordering key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordering_key: Option<String>,
    /// The attributes, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<(String, String)>,
    /// The subscription it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription: Option<String>,
}

impl DeliveryNote {
    /// Notes what came beside the bytes.
    pub fn of(delivery: &Delivery) -> Self {
        Self {
            message_id: delivery.message_id.clone(),
            publish_time: delivery.publish_time.map(micros_of),
            attempt: delivery.attempt,
            ordering_key: delivery.ordering_key.clone(),
            attributes: delivery.attributes.clone(),
            subscription: delivery.subscription.clone(),
        }
    }

    /// Reads a note; one that cannot be read is empty, the bytes count more.
    pub fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    /// Writes it as it is kept.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Makes the delivery again.
    pub fn with(self, data: Bytes) -> Delivery {
        Delivery {
            data,
            message_id: self.message_id,
            publish_time: self.publish_time.map(time_of),
            attempt: self.attempt,
            ordering_key: self.ordering_key,
            attributes: self.attributes,
            subscription: self.subscription,
            request_trace: None,
        }
    }
}
