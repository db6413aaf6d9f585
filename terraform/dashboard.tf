locals {
  # Title, filter, aligner, reducer, label to split by.
  charts = [
    ["Pushes by answer", "metric.type=\"pubsub.googleapis.com/subscription/push_request_count\" AND ${local.push_subscriptions}", "ALIGN_RATE", "REDUCE_SUM", "metric.label.response_class"],
    ["Oldest unacknowledged event (s)", "metric.type=\"pubsub.googleapis.com/subscription/oldest_unacked_message_age\" AND ${local.push_subscriptions}", "ALIGN_MAX", "REDUCE_MAX", "resource.label.subscription_id"],
    ["Events waiting", "metric.type=\"pubsub.googleapis.com/subscription/num_undelivered_messages\" AND ${local.push_subscriptions}", "ALIGN_MAX", "REDUCE_SUM", "resource.label.subscription_id"],
    ["Dead letters waiting", "metric.type=\"pubsub.googleapis.com/subscription/num_undelivered_messages\" AND resource.type=\"pubsub_subscription\" AND resource.labels.subscription_id=\"${google_pubsub_subscription.dead_letters.name}\"", "ALIGN_MAX", "REDUCE_SUM", "resource.label.subscription_id"],
    ["Dead letters by error", "metric.type=\"logging.googleapis.com/user/${google_logging_metric.this["dead_lettered"].name}\" AND resource.type=\"cloud_run_revision\"", "ALIGN_RATE", "REDUCE_SUM", "metric.label.error_code"],
    ["Handed back by error", "metric.type=\"logging.googleapis.com/user/${google_logging_metric.this["handed_back"].name}\" AND resource.type=\"cloud_run_revision\"", "ALIGN_RATE", "REDUCE_SUM", "metric.label.error_code"],
    ["Refused pushes by reason", "metric.type=\"logging.googleapis.com/user/${google_logging_metric.this["push_refused"].name}\" AND resource.type=\"cloud_run_revision\"", "ALIGN_RATE", "REDUCE_SUM", "metric.label.reason"],
    ["Answers by status", "metric.type=\"run.googleapis.com/request_count\" AND ${local.service}", "ALIGN_RATE", "REDUCE_SUM", "metric.label.response_code"],
    ["Time to answer, p99 (ms)", "metric.type=\"run.googleapis.com/request_latencies\" AND ${local.service}", "ALIGN_PERCENTILE_99", "REDUCE_MAX", "resource.label.revision_name"],
    ["Instances", "metric.type=\"run.googleapis.com/container/instance_count\" AND ${local.service}", "ALIGN_MAX", "REDUCE_SUM", "metric.label.state"],
    ["CPU, p99 (of 1)", "metric.type=\"run.googleapis.com/container/cpu/utilizations\" AND ${local.service}", "ALIGN_PERCENTILE_99", "REDUCE_MAX", "resource.label.revision_name"],
    ["Memory, p99 (of 1)", "metric.type=\"run.googleapis.com/container/memory/utilizations\" AND ${local.service}", "ALIGN_PERCENTILE_99", "REDUCE_MAX", "resource.label.revision_name"],
  ]

  columns = 3
}

resource "google_monitoring_dashboard" "this" {
  dashboard_json = jsonencode({
    displayName = var.name
    mosaicLayout = {
      columns = 48
      tiles = [
        for index, chart in local.charts : {
          xPos   = (index % local.columns) * 16
          yPos   = floor(index / local.columns) * 14
          width  = 16
          height = 14
          widget = {
            title = chart[0]
            xyChart = {
              dataSets = [{
                plotType       = "LINE"
                targetAxis     = "Y1"
                legendTemplate = "$${${replace(chart[4], "label.", "labels.")}}"
                timeSeriesQuery = {
                  timeSeriesFilter = {
                    filter = chart[1]
                    aggregation = {
                      alignmentPeriod    = "60s"
                      perSeriesAligner   = chart[2]
                      crossSeriesReducer = chart[3]
                      groupByFields      = [chart[4]]
                    }
                  }
                }
              }]
            }
          }
        }
      ]
    }
  })
}
