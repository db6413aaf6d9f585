# One place for all that is not tried again by itself: what the service gives up on (it publishes
# the original bytes with hookyard-* attributes) and what Pub/Sub gives up on (it adds
# CloudPubSubDeadLetter* attributes). With a database that place is the service's table: Pub/Sub's
# are drained into it, and its own need not be published (publish_dead_letters).

locals {
  publishes_dead_letters = coalesce(var.publish_dead_letters, !var.database.enabled)
}

resource "google_pubsub_topic" "dead_letters" {
  name                       = "${var.name}-dead-letters"
  message_retention_duration = "${var.retention_days.dead_letters * local.day}s"
  labels                     = local.labels

  dynamic "message_storage_policy" {
    for_each = length(var.message_regions) == 0 ? [] : [var.message_regions]

    content {
      allowed_persistence_regions = message_storage_policy.value
    }
  }
}

# A topic without a subscription keeps nothing that anybody could pull.
resource "google_pubsub_subscription" "dead_letters" {
  name                       = "${var.name}-dead-letters"
  topic                      = google_pubsub_topic.dead_letters.id
  ack_deadline_seconds       = 600 # time to look at one before it shows up again
  message_retention_duration = "${var.retention_days.dead_letters * local.day}s"
  labels                     = local.labels

  expiration_policy {
    ttl = ""
  }
}

resource "google_pubsub_topic_iam_member" "runtime_publishes_dead_letters" {
  count = local.publishes_dead_letters ? 1 : 0

  topic  = google_pubsub_topic.dead_letters.name
  role   = "roles/pubsub.publisher"
  member = "serviceAccount:${local.runtime_account}"
}

resource "google_pubsub_topic_iam_member" "pubsub_publishes_dead_letters" {
  topic  = google_pubsub_topic.dead_letters.name
  role   = "roles/pubsub.publisher"
  member = local.pubsub_agent
}

resource "google_pubsub_subscription_iam_member" "dead_letter_reader" {
  for_each = var.dead_letter_readers

  subscription = google_pubsub_subscription.dead_letters.name
  role         = "roles/pubsub.subscriber"
  member       = each.value
}

# With a database the service takes what waits there into its own table (DEAD_LETTER_SUBSCRIPTION).
resource "google_pubsub_subscription_iam_member" "runtime_drains_dead_letters" {
  for_each = var.database.enabled ? toset(["runtime"]) : toset([])

  subscription = google_pubsub_subscription.dead_letters.name
  role         = "roles/pubsub.subscriber"
  member       = "serviceAccount:${local.runtime_account}"
}
