# The bridge between Hasura and Pub/Sub. Hasura has no Google identity, so Cloud Run's invoker check
# cannot let it in: the bridge itself checks the shared secret in the header of each webhook, and
# does not start without one.

locals {
  bridges        = var.bridge == null ? {} : { this = var.bridge }
  bridge_account = "${var.name}-bridge@${var.project_id}.iam.gserviceaccount.com"
}

resource "google_cloud_run_v2_service" "bridge" {
  for_each = local.bridges

  name                 = "${var.name}-bridge"
  location             = var.region
  description          = "Publishes Hasura's events"
  ingress              = each.value.ingress
  deletion_protection  = var.deletion_protection
  invoker_iam_disabled = true
  labels               = local.labels

  template {
    service_account                  = local.bridge_account
    timeout                          = "${each.value.timeout_seconds + 5}s"
    max_instance_request_concurrency = var.concurrency
    session_affinity                 = false
    labels                           = local.labels

    scaling {
      min_instance_count = each.value.min_instances
      max_instance_count = each.value.max_instances
    }

    containers {
      name  = "bridge"
      image = var.image
      args  = ["bridge"]

      ports {
        container_port = 8080
      }

      resources {
        limits = {
          cpu    = "1"
          memory = "${var.memory_mib}Mi"
        }
        cpu_idle          = true # it works only while Hasura waits for the answer
        startup_cpu_boost = true
      }

      dynamic "env" {
        for_each = {
          LOG_FORMAT           = "json"
          LOG_LEVEL            = var.log_level
          EVENT_BUS_TYPE       = "pubsub"
          GOOGLE_CLOUD_PROJECT = var.project_id
          BRIDGE_TOPIC         = local.topic_of[each.value.trigger]
          BRIDGE_KEY_COLUMNS   = join(",", [for table, columns in each.value.key_columns : "${table}=${join("+", columns)}"])
          BRIDGE_TIMEOUT_MS    = tostring(each.value.timeout_seconds * 1000)
          MAX_IN_FLIGHT        = tostring(var.concurrency)
          SHUTDOWN_GRACE_MS    = "9000"
        }

        content {
          name  = env.key
          value = env.value
        }
      }

      env {
        name = "BRIDGE_SECRET"

        value_source {
          secret_key_ref {
            secret  = "${var.name}-bridge-secret"
            version = lookup(var.secret_versions, "bridge-secret", "latest")
          }
        }
      }

      startup_probe {
        period_seconds    = 1
        timeout_seconds   = 1
        failure_threshold = 30

        http_get {
          path = "/health"
          port = 8080
        }
      }

      liveness_probe {
        period_seconds    = 10
        timeout_seconds   = 5
        failure_threshold = 3

        http_get {
          path = "/health"
          port = 8080
        }
      }
    }
  }

  lifecycle {
    ignore_changes = [client, client_version]
  }

  depends_on = [google_pubsub_topic_iam_member.bridge_publishes]
}

# A topic of another team gives its rights itself: see `publishers` there.
resource "google_pubsub_topic_iam_member" "bridge_publishes" {
  for_each = { for name, it in local.bridges : name => it if contains(keys(local.own_topics), it.trigger) }

  topic  = google_pubsub_topic.trigger[each.value.trigger].name
  role   = "roles/pubsub.publisher"
  member = "serviceAccount:${local.bridge_account}"
}

output "bridge_uri" {
  description = "Where Hasura's event triggers call the bridge, if there is one."
  value       = var.bridge == null ? null : "${google_cloud_run_v2_service.bridge["this"].uri}/hasura/events"
}
