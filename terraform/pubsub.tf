# In: one topic and push subscription per trigger. Out: the topic of downstream events.
# Where dead letters go stands in dead_letters.tf.

locals {
  # Topics made here; others exist already and belong to somebody else.
  own_topics = { for name, it in var.triggers : name => it if it.topic == null }

  topic_of = {
    for name, it in var.triggers : name => it.topic != null ? it.topic : google_pubsub_topic.trigger[name].id
  }

  publishers = merge([
    for name, it in local.own_topics : { for who in it.publishers : "${name} ${who}" => { topic = name, member = who } }
  ]...)

  day = 86400
}

resource "google_pubsub_topic" "trigger" {
  for_each = local.own_topics

  name                       = each.key
  message_retention_duration = "${var.retention_days.topic * local.day}s"
  labels                     = local.labels

  dynamic "message_storage_policy" {
    for_each = length(var.message_regions) == 0 ? [] : [var.message_regions]

    content {
      allowed_persistence_regions = message_storage_policy.value
    }
  }
}

resource "google_pubsub_topic_iam_member" "trigger_publisher" {
  for_each = local.publishers

  topic  = google_pubsub_topic.trigger[each.value.topic].name
  role   = "roles/pubsub.publisher"
  member = each.value.member
}

resource "google_pubsub_subscription" "push" {
  for_each = var.triggers

  name                       = "${each.key}-${var.name}"
  topic                      = local.topic_of[each.key]
  ack_deadline_seconds       = var.ack_deadline_seconds
  message_retention_duration = "${var.retention_days.subscription * local.day}s"
  enable_message_ordering    = each.value.ordered
  filter                     = each.value.filter
  labels                     = local.labels

  push_config {
    push_endpoint = "${google_cloud_run_v2_service.this.uri}/push"

    oidc_token {
      service_account_email = local.push_account
      audience              = local.push_audience
    }
  }

  retry_policy {
    minimum_backoff = "${var.retry.minimum_backoff_seconds}s"
    maximum_backoff = "${var.retry.maximum_backoff_seconds}s"
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_letters.id
    max_delivery_attempts = var.retry.max_delivery_attempts
  }

  # Never: by default a subscription that was idle for 31 days is deleted without a word.
  expiration_policy {
    ttl = ""
  }

  # In platform mode the first push would be refused without it.
  depends_on = [google_cloud_run_v2_service_iam_member.push]
}

# Pub/Sub moves a message it gives up on in its own name: it acknowledges it here and publishes it
# on the dead-letter topic. Without both rights the message is delivered for ever.
resource "google_pubsub_subscription_iam_member" "pubsub_acknowledges" {
  for_each = google_pubsub_subscription.push

  subscription = each.value.name
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub_agent
}

resource "google_pubsub_topic" "events" {
  name                       = "${var.name}-events"
  message_retention_duration = "${var.retention_days.topic * local.day}s"
  labels                     = local.labels

  dynamic "message_storage_policy" {
    for_each = length(var.message_regions) == 0 ? [] : [var.message_regions]

    content {
      allowed_persistence_regions = message_storage_policy.value
    }
  }
}

resource "google_pubsub_topic_iam_member" "runtime_publishes_events" {
  topic  = google_pubsub_topic.events.name
  role   = "roles/pubsub.publisher"
  member = "serviceAccount:${local.runtime_account}"
}

resource "google_pubsub_topic_iam_member" "event_consumer" {
  for_each = var.event_consumers

  topic  = google_pubsub_topic.events.name
  role   = "roles/pubsub.subscriber"
  member = each.value
}

# The smoke test of a deployment: an event on this topic reaches the newest revision, which has no
# other traffic yet, by a real push with a real token.
resource "google_pubsub_topic" "smoke" {
  name   = "${var.name}-smoke"
  labels = local.labels
}

resource "google_pubsub_subscription" "smoke" {
  name                       = "${var.name}-smoke"
  topic                      = google_pubsub_topic.smoke.id
  ack_deadline_seconds       = var.ack_deadline_seconds
  message_retention_duration = "600s" # a failed smoke test leaves nothing behind for the next one
  labels                     = local.labels

  push_config {
    push_endpoint = "${replace(google_cloud_run_v2_service.this.uri, "https://", "https://${local.candidate_tag}---")}/push"

    oidc_token {
      service_account_email = local.push_account
      audience              = local.push_audience
    }
  }

  retry_policy {
    minimum_backoff = "5s"
    maximum_backoff = "10s"
  }

  expiration_policy {
    ttl = ""
  }

  depends_on = [google_cloud_run_v2_service_iam_member.push]
}
