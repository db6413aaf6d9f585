# What the durable mode adds. The sidecar's metrics tell all of it; without the sidecar the log tells
# the first two, and nobody tells the others.

locals {
  has_database = var.database.enabled
  is_measured  = var.metrics_sidecar != null

  # Conditions in PromQL. Every instance shows the numbers of the whole database.
  measured_alerts = {
    the-database-does-not-answer = {
      title    = "the database does not answer"
      severity = "CRITICAL"
      summary  = "At least one instance does not reach the database: it takes nothing in until it does."
      query    = "min(hookyard_database_up{job=\"${var.name}\"}) == 0"
      for      = "120s"
    }
    failed-events-are-open = {
      title    = "failed events wait for a decision"
      severity = "ERROR"
      summary  = "Events that will not be tried again by themselves are in the table event_dead_letters."
      query    = "max(hookyard_dead_letters_open{job=\"${var.name}\"}) > 0"
      for      = "0s"
    }
    the-outbox-waits = {
      title    = "the outbox waits"
      severity = "ERROR"
      summary  = "An event has waited for more than ${var.alert_thresholds.outbox_seconds} seconds to be published."
      query    = "max(hookyard_outbox_oldest_age_seconds{job=\"${var.name}\"}) > ${var.alert_thresholds.outbox_seconds}"
      for      = "180s"
    }
    rows-are-not-worked-off = {
      title    = "rows of the events table are not worked off"
      severity = "ERROR"
      summary  = "A due row of the events table is older than ${var.alert_thresholds.due_seconds} seconds."
      query    = "max(hookyard_events_oldest_due_age_seconds{job=\"${var.name}\"}) > ${var.alert_thresholds.due_seconds}"
      for      = "300s"
    }
    lanes-rest = {
      title    = "lanes rest"
      severity = "WARNING"
      summary  = "Lanes of the events table are paused again and again, because an upstream is away."
      # A pause is shorter than the time an upstream is away; between two of them one event probes.
      query = "max(max_over_time(hookyard_lanes_paused{job=\"${var.name}\"}[2m])) > 0"
      for   = "300s"
    }
  }

  logged_alerts = {
    the-database-does-not-answer = {
      title    = "the database does not answer"
      severity = "CRITICAL"
      summary  = "An instance said that it does not reach the database: it takes nothing in until it does."
      conditions = {
        "said in the log" = {
          filter  = "metric.type=\"logging.googleapis.com/user/${google_logging_metric.this["database_away"].name}\" AND resource.type=\"cloud_run_revision\""
          aligner = "ALIGN_DELTA", reducer = "REDUCE_SUM", above = 0, for = "0s", denominator = null
        }
      }
    }
    failed-events-are-open = {
      title    = "events have failed"
      severity = "ERROR"
      summary  = "Events were put into the table event_dead_letters, where they wait for a decision."
      conditions = {
        "said in the log" = {
          filter  = "metric.type=\"logging.googleapis.com/user/${google_logging_metric.this["dead_lettered"].name}\" AND resource.type=\"cloud_run_revision\""
          aligner = "ALIGN_DELTA", reducer = "REDUCE_SUM", above = 0, for = "0s", denominator = null
        }
      }
    }
  }

  durable_logged   = { for key, it in local.logged_alerts : key => it if local.has_database && !local.is_measured }
  durable_measured = { for key, it in local.measured_alerts : key => it if local.has_database && local.is_measured }
}

resource "google_monitoring_alert_policy" "durable" {
  for_each = local.durable_measured

  display_name          = "${var.name}: ${each.value.title}"
  combiner              = "OR"
  severity              = each.value.severity
  notification_channels = var.notification_channels
  user_labels           = local.labels

  conditions {
    display_name = each.value.title

    condition_prometheus_query_language {
      query               = each.value.query
      duration            = each.value.for
      evaluation_interval = "60s"
      # The metrics come to be with the first instance; the policy may be made before.
      disable_metric_validation = true
    }
  }

  documentation {
    content   = local.documentation[each.key]
    mime_type = "text/markdown"
  }
}

check "durable_mode_is_measured" {
  assert {
    condition     = !local.has_database || local.is_measured
    error_message = "Without metrics_sidecar nobody is told when the outbox or the events table is not worked off."
  }
}
