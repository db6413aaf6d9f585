locals {
  candidate_tag = "candidate"

  secrets = merge({
    HASURA_ADMIN_SECRET = "hasura-admin-secret"
    CHARGEBEE_API_KEY   = "chargebee-api-key"
    ADMIN_TOKEN         = "admin-token"
    }, var.admin_read_token ? {
    ADMIN_READ_TOKEN = "admin-read-token"
    } : {}, var.database.enabled ? {
    DATABASE_URL = "database-url"
  } : {})

  # The sidecar only looks.
  scrape_secret = var.admin_read_token ? "admin-read-token" : "admin-token"

  environment = merge(var.environment, {
    LOG_FORMAT                = "json"
    LOG_LEVEL                 = var.log_level
    PUSH_AUTH_MODE            = var.push_auth_mode
    PUSH_AUDIENCE             = local.push_audience
    PUSH_SERVICE_ACCOUNT      = local.push_account
    HASURA_GRAPHQL_URL        = var.hasura_graphql_url
    CHARGEBEE_URL             = trimsuffix(var.chargebee_url, "/")
    CHARGEBEE_PRODUCT_CATALOG = tostring(var.chargebee_product_catalog)
    EVENT_BUS_TYPE            = "pubsub"
    GOOGLE_CLOUD_PROJECT      = var.project_id
    EVENTS_TOPIC              = google_pubsub_topic.events.name
    ACK_DEADLINE_MS           = tostring(var.ack_deadline_seconds * 1000)
    HANDLER_TIMEOUT_MS        = tostring(var.handler_timeout_seconds * 1000)
    MAX_IN_FLIGHT             = tostring(var.concurrency)
    SHUTDOWN_GRACE_MS         = "9000" # Cloud Run kills 10 s after SIGTERM
    }, local.publishes_dead_letters ? {
    DEAD_LETTER_TOPIC = google_pubsub_topic.dead_letters.name
    } : {}, var.database.enabled ? {
    DEAD_LETTER_SUBSCRIPTION = google_pubsub_subscription.dead_letters.name
    DATABASE_MAX_CONNECTIONS = tostring(var.database.connections)
    ENABLE_POLLING           = tostring(var.database.polling)
    RETRY_OWNER              = var.database.retry_owner
    } : {}, var.metrics_sidecar == null ? {} : {
    OTEL_EXPORTER_OTLP_ENDPOINT = "http://localhost:4318"
    OTEL_TRACES_SAMPLER         = "parentbased_traceidratio"
    OTEL_TRACES_SAMPLER_ARG     = tostring(var.metrics_sidecar.trace_ratio)
  })
}

resource "google_cloud_run_v2_service" "this" {
  name                = var.name
  location            = var.region
  description         = "Runs handlers for events that Pub/Sub pushes"
  ingress             = var.ingress
  deletion_protection = var.deletion_protection
  labels              = local.labels

  # Exactly one of the two looks at the token's signature. With the invoker check on, Cloud Run
  # takes the signature out of the token, so that the service could not check it any more.
  invoker_iam_disabled = local.is_verifying
  custom_audiences     = local.is_verifying ? null : [local.push_audience]

  template {
    service_account                  = local.runtime_account
    timeout                          = "${var.ack_deadline_seconds + 10}s" # Pub/Sub gives up first
    max_instance_request_concurrency = var.concurrency
    session_affinity                 = false
    labels                           = local.labels

    scaling {
      min_instance_count = var.min_instances
      max_instance_count = var.max_instances
    }

    dynamic "vpc_access" {
      for_each = var.vpc == null ? [] : [var.vpc]

      content {
        egress = vpc_access.value.egress

        network_interfaces {
          network    = vpc_access.value.network
          subnetwork = vpc_access.value.subnetwork
          tags       = vpc_access.value.tags
        }
      }
    }

    containers {
      name  = "hookyard"
      image = var.image
      args  = ["serve"]

      ports {
        container_port = 8080
      }

      resources {
        limits = {
          cpu    = tostring(var.cpu)
          memory = "${var.memory_mib}Mi"
        }
        cpu_idle          = !var.cpu_always_allocated
        startup_cpu_boost = true
      }

      dynamic "env" {
        for_each = local.environment

        content {
          name  = env.key
          value = env.value
        }
      }

      dynamic "env" {
        for_each = local.secrets

        content {
          name = env.key

          value_source {
            secret_key_ref {
              secret  = "${var.name}-${env.value}"
              version = lookup(var.secret_versions, env.value, "latest")
            }
          }
        }
      }

      # A revision with an unusable configuration exits at once and never gets this far.
      startup_probe {
        period_seconds    = 1
        timeout_seconds   = 1
        failure_threshold = 30

        http_get {
          path = "/health"
          port = 8080
        }
      }

      # /health, not /ready: a service that waits for an upstream is not mended by a restart.
      liveness_probe {
        period_seconds    = 10
        timeout_seconds   = 5
        failure_threshold = 3

        http_get {
          path = "/health"
          port = 8080
        }
      }

      dynamic "volume_mounts" {
        for_each = var.database.enabled ? ["cloudsql"] : []

        content {
          name       = volume_mounts.value
          mount_path = "/cloudsql"
        }
      }
    }

    dynamic "containers" {
      for_each = var.metrics_sidecar == null ? [] : [var.metrics_sidecar]

      content {
        name       = "collector"
        image      = containers.value.image
        args       = ["--config=env:COLLECTOR_CONFIG"]
        depends_on = ["hookyard"]

        resources {
          limits = {
            cpu    = "${containers.value.cpu_millis}m"
            memory = "${containers.value.memory_mib}Mi"
          }
          cpu_idle = !var.cpu_always_allocated
        }

        env {
          name  = "COLLECTOR_CONFIG"
          value = file("${path.module}/../docs/monitoring/collector.yaml")
        }

        env {
          name  = "SCRAPE_JOB"
          value = var.name
        }

        env {
          name  = "SCRAPE_INTERVAL"
          value = containers.value.interval
        }

        env {
          name = "SCRAPE_TOKEN"

          value_source {
            secret_key_ref {
              secret  = "${var.name}-${local.scrape_secret}"
              version = lookup(var.secret_versions, local.scrape_secret, "latest")
            }
          }
        }
      }
    }

    dynamic "volumes" {
      for_each = google_sql_database_instance.this

      content {
        name = "cloudsql"

        cloud_sql_instance {
          instances = [volumes.value.connection_name]
        }
      }
    }
  }

  # Until the smoke test has passed, the revision before keeps all traffic. The newest can be
  # reached under its tag. Shifting the traffic is not Terraform's work: scripts/cloudbuild/release.sh.
  dynamic "traffic" {
    for_each = var.stable_revision == null ? [] : [var.stable_revision]

    content {
      type     = "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION"
      revision = traffic.value
      percent  = 100
    }
  }

  traffic {
    type    = "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST"
    percent = var.stable_revision == null ? 100 : 0
    tag     = local.candidate_tag
  }

  lifecycle {
    ignore_changes = [client, client_version]

    # The one way to an open door: no invoker check, and a service that believes in one.
    postcondition {
      condition     = self.invoker_iam_disabled == (local.environment["PUSH_AUTH_MODE"] == "verify")
      error_message = "The invoker check has to be on in platform mode, or nobody checks the signature of push tokens; and off in verify mode, or the service cannot."
    }
  }

  # A revision that starts before it may publish would fail its first events.
  depends_on = [
    google_pubsub_topic_iam_member.runtime_publishes_events,
    google_pubsub_topic_iam_member.runtime_publishes_dead_letters,
  ]
}

# The only caller in platform mode. In verify mode there is no binding at all.
resource "google_cloud_run_v2_service_iam_member" "push" {
  count = local.is_verifying ? 0 : 1

  name     = google_cloud_run_v2_service.this.name
  location = google_cloud_run_v2_service.this.location
  role     = "roles/run.invoker"
  member   = "serviceAccount:${local.push_account}"
}
