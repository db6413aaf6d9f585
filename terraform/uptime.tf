# Looks at /health from outside, which only works when outside may look. With internal ingress the
# alerts `nothing-runs` and `events-are-not-worked-off` take its place.

resource "google_monitoring_uptime_check_config" "health" {
  count = local.is_reached_publicly ? 1 : 0

  display_name = "${var.name}: /health"
  timeout      = "10s"
  period       = "60s"
  user_labels  = local.labels

  monitored_resource {
    type = "uptime_url"
    labels = {
      project_id = var.project_id
      host       = trimprefix(google_cloud_run_v2_service.this.uri, "https://")
    }
  }

  http_check {
    path           = "/health"
    port           = 443
    use_ssl        = true
    validate_ssl   = true
    request_method = "GET"

    accepted_response_status_codes {
      status_value = 200
    }

    # In platform mode Cloud Run lets nobody in without a token.
    dynamic "service_agent_authentication" {
      for_each = local.is_verifying ? [] : ["OIDC_TOKEN"]

      content {
        type = service_agent_authentication.value
      }
    }
  }
}

# It may call the service, but cannot push: the service looks at the account in the token.
resource "google_cloud_run_v2_service_iam_member" "uptime_check" {
  count = local.is_reached_publicly && !local.is_verifying ? 1 : 0

  name     = google_cloud_run_v2_service.this.name
  location = google_cloud_run_v2_service.this.location
  role     = "roles/run.invoker"
  member   = local.uptime_check_agent
}

resource "google_monitoring_alert_policy" "uptime" {
  count = local.is_reached_publicly ? 1 : 0

  display_name          = "${var.name}: /health does not answer"
  combiner              = "OR"
  severity              = "CRITICAL"
  notification_channels = var.notification_channels
  user_labels           = local.labels

  conditions {
    display_name = "checks failed from more than one place"

    condition_threshold {
      filter          = "metric.type=\"monitoring.googleapis.com/uptime_check/check_passed\" AND resource.type=\"uptime_url\" AND metric.labels.check_id=\"${google_monitoring_uptime_check_config.health[0].uptime_check_id}\""
      comparison      = "COMPARISON_GT"
      threshold_value = 1
      duration        = "120s"

      aggregations {
        alignment_period     = "120s"
        per_series_aligner   = "ALIGN_NEXT_OLDER"
        cross_series_reducer = "REDUCE_COUNT_FALSE"
      }
    }
  }

  documentation {
    content   = local.documentation["health-does-not-answer"]
    mime_type = "text/markdown"
  }
}
