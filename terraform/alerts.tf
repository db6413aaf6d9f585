# One policy per section of docs/RUNBOOK.md. A policy's key is the section's anchor.

locals {
  runbook = coalesce(var.runbook_url, "docs/RUNBOOK.md")

  push_subscriptions = "resource.type=\"pubsub_subscription\" AND resource.labels.subscription_id=monitoring.regex.full_match(\"${join("|", [for it in google_pubsub_subscription.push : it.name])}\")"
  service            = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${var.name}\""

  # filter, aligner and reducer in Cloud Monitoring's words; fires above `above` for `for`.
  threshold_alerts = {
    dead-letters-waiting = {
      title    = "dead letters are waiting"
      severity = "ERROR"
      summary  = var.database.enabled ? "Dead letters stay in their subscription: the service does not drain it." : "Events that will not be tried again by themselves wait in the dead-letter subscription."
      conditions = {
        "messages in ${google_pubsub_subscription.dead_letters.name}" = {
          filter = "metric.type=\"pubsub.googleapis.com/subscription/num_undelivered_messages\" AND resource.type=\"pubsub_subscription\" AND resource.labels.subscription_id=\"${google_pubsub_subscription.dead_letters.name}\""
          # With a database the service drains it: what is there for a moment is on its way.
          aligner = "ALIGN_MAX", reducer = "REDUCE_SUM", above = 0, for = var.database.enabled ? "900s" : "0s", denominator = null
        }
        "Pub/Sub gave up on a message" = {
          filter  = "metric.type=\"pubsub.googleapis.com/subscription/dead_letter_message_count\" AND ${local.push_subscriptions}"
          aligner = "ALIGN_DELTA", reducer = "REDUCE_SUM", above = 0, for = "0s", denominator = null
        }
      }
    }
    events-are-not-worked-off = {
      title    = "events are not worked off"
      severity = "CRITICAL"
      summary  = "The oldest event has waited for more than ${var.alert_thresholds.oldest_unacked_seconds} seconds."
      conditions = {
        "oldest unacknowledged message" = {
          filter  = "metric.type=\"pubsub.googleapis.com/subscription/oldest_unacked_message_age\" AND ${local.push_subscriptions}"
          aligner = "ALIGN_MAX", reducer = "REDUCE_MAX", above = var.alert_thresholds.oldest_unacked_seconds, for = "120s", denominator = null
        }
      }
    }
    pushes-fail = {
      title    = "pushes fail"
      severity = "ERROR"
      summary  = "More than ${var.alert_thresholds.push_error_ratio * 100} % of Pub/Sub's pushes are not acknowledged; it slows the whole subscription down."
      conditions = {
        "pushes not acknowledged / all pushes" = {
          filter      = "metric.type=\"pubsub.googleapis.com/subscription/push_request_count\" AND ${local.push_subscriptions} AND metric.labels.response_class!=\"ack\""
          denominator = "metric.type=\"pubsub.googleapis.com/subscription/push_request_count\" AND ${local.push_subscriptions}"
          aligner     = "ALIGN_DELTA", reducer = "REDUCE_SUM", above = var.alert_thresholds.push_error_ratio, for = "300s"
        }
      }
    }
    tokens-are-refused = {
      title    = "push tokens are refused"
      severity = "ERROR"
      summary  = "Requests are answered 401 or 403: a wrong audience or account, or somebody is trying."
      conditions = {
        "401 and 403 in 5 minutes" = {
          filter  = "metric.type=\"run.googleapis.com/request_count\" AND ${local.service} AND metric.labels.response_code=monitoring.regex.full_match(\"401|403\")"
          aligner = "ALIGN_DELTA", reducer = "REDUCE_SUM", above = var.alert_thresholds.rejected_per_5_minutes, for = "0s", denominator = null
        }
      }
    }
    credentials-are-refused = {
      title    = "an upstream refuses our credentials"
      severity = "CRITICAL"
      summary  = "Chargebee or Hasura answers that the service's key or secret is not valid. Events are handed back until it is."
      conditions = {
        "events handed back for it" = {
          filter  = "metric.type=\"logging.googleapis.com/user/${google_logging_metric.this["credentials_refused"].name}\" AND resource.type=\"cloud_run_revision\""
          aligner = "ALIGN_DELTA", reducer = "REDUCE_SUM", above = 0, for = "0s", denominator = null
        }
      }
    }
    instances-crash = {
      title    = "instances crash"
      severity = "ERROR"
      summary  = "An instance exited, was killed or failed its probes."
      conditions = {
        "instances that did not end by themselves" = {
          filter  = "metric.type=\"logging.googleapis.com/user/${google_logging_metric.this["instance_crashed"].name}\" AND resource.type=\"cloud_run_revision\""
          aligner = "ALIGN_DELTA", reducer = "REDUCE_SUM", above = 0, for = "0s", denominator = null
        }
      }
    }
  }

  bridge_alerts = { for _, it in google_cloud_run_v2_service.bridge : "bridge-fails" => {
    title    = "the bridge cannot publish"
    severity = "CRITICAL"
    summary  = "Hasura's webhooks are answered 5xx. Hasura tries again num_retries times and then gives up."
    conditions = {
      "answers 5xx" = {
        filter  = "metric.type=\"run.googleapis.com/request_count\" AND resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${it.name}\" AND metric.labels.response_code_class=\"5xx\""
        aligner = "ALIGN_DELTA", reducer = "REDUCE_SUM", above = 0, for = "0s", denominator = null
      }
      "refused for their secret (401, 403)" = {
        filter  = "metric.type=\"run.googleapis.com/request_count\" AND resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${it.name}\" AND metric.labels.response_code=monitoring.regex.full_match(\"401|403\")"
        aligner = "ALIGN_DELTA", reducer = "REDUCE_SUM", above = var.alert_thresholds.rejected_per_5_minutes, for = "0s", denominator = null
      }
    }
  } }

  documentation = {
    for key, it in merge(local.threshold_alerts, local.bridge_alerts, local.durable_logged, local.durable_measured, {
      events-are-old         = { summary = "One event in a hundred is older than ${var.alert_thresholds.event_age_p99_seconds} seconds when it arrives." }
      nothing-runs           = { summary = "No instance of the service is running, though one should always be." }
      health-does-not-answer = { summary = "The service does not answer on /health from outside." }
    }) : key => "${it.summary}\n\nWhat to do: ${local.runbook}#${key}"
  }
}

resource "google_monitoring_alert_policy" "threshold" {
  for_each = merge(local.threshold_alerts, local.bridge_alerts, local.durable_logged)

  display_name          = "${var.name}: ${each.value.title}"
  combiner              = "OR"
  severity              = each.value.severity
  notification_channels = var.notification_channels
  user_labels           = local.labels

  dynamic "conditions" {
    for_each = each.value.conditions

    content {
      display_name = conditions.key

      condition_threshold {
        filter             = conditions.value.filter
        denominator_filter = conditions.value.denominator
        comparison         = "COMPARISON_GT"
        threshold_value    = conditions.value.above
        duration           = conditions.value.for

        aggregations {
          alignment_period     = "300s"
          per_series_aligner   = conditions.value.aligner
          cross_series_reducer = conditions.value.reducer
        }

        dynamic "denominator_aggregations" {
          for_each = conditions.value.denominator == null ? [] : [conditions.value]

          content {
            alignment_period     = "300s"
            per_series_aligner   = denominator_aggregations.value.aligner
            cross_series_reducer = denominator_aggregations.value.reducer
          }
        }

        trigger {
          count = 1
        }
      }
    }
  }

  documentation {
    content   = local.documentation[each.key]
    mime_type = "text/markdown"
  }

  alert_strategy {
    auto_close = "86400s"
  }
}

resource "google_monitoring_alert_policy" "event_age" {
  count = var.metrics_sidecar == null ? 0 : 1

  display_name          = "${var.name}: events are old when they arrive"
  combiner              = "OR"
  severity              = "WARNING"
  notification_channels = var.notification_channels
  user_labels           = local.labels

  conditions {
    display_name = "p99 of hookyard_event_age_seconds"

    condition_prometheus_query_language {
      query               = "histogram_quantile(0.99, sum by (le) (rate(hookyard_event_age_seconds_bucket{job=\"${var.name}\"}[5m]))) > ${var.alert_thresholds.event_age_p99_seconds}"
      duration            = "300s"
      evaluation_interval = "60s"
      # The metric comes to be with the first event; the policy may be made before.
      disable_metric_validation = true
    }
  }

  documentation {
    content   = local.documentation["events-are-old"]
    mime_type = "text/markdown"
  }
}

resource "google_monitoring_alert_policy" "absent" {
  count = var.min_instances == 0 ? 0 : 1

  display_name          = "${var.name}: nothing runs"
  combiner              = "OR"
  severity              = "CRITICAL"
  notification_channels = var.notification_channels
  user_labels           = local.labels

  conditions {
    display_name = "no instance for 10 minutes"

    condition_absent {
      filter   = "metric.type=\"run.googleapis.com/container/instance_count\" AND ${local.service}"
      duration = "600s"

      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_MAX"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }

  documentation {
    content   = local.documentation["nothing-runs"]
    mime_type = "text/markdown"
  }
}
