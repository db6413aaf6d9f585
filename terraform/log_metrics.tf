# Numbers made of log lines: they work without the sidecar, and count what the service says about
# itself. Field names are those of docs/TELEMETRY.md.

locals {
  service_logs = join(" AND ", [
    "resource.type=\"cloud_run_revision\"",
    "resource.labels.service_name=\"${var.name}\"",
  ])

  log_metrics = {
    dead_lettered = {
      description = "Events and deliveries the service kept as dead letters."
      filter      = "jsonPayload.outcome=\"dead_lettered\""
      label       = "error_code"
      extractor   = "EXTRACT(jsonPayload.\"error.code\")"
    }
    handed_back = {
      description = "Events the service could not process for the moment; Pub/Sub delivers them again."
      filter      = "jsonPayload.outcome=\"retry\""
      label       = "error_code"
      extractor   = "EXTRACT(jsonPayload.\"error.code\")"
    }
    credentials_refused = {
      description = "Events handed back because Chargebee or Hasura refuse the service's own credentials."
      filter      = "jsonPayload.alert=\"upstream_auth\""
      label       = "error_code"
      extractor   = "EXTRACT(jsonPayload.\"error.code\")"
    }
    push_refused = {
      description = "Push requests the service refused before it looked at the event."
      filter      = "jsonPayload.message=\"push request refused\""
      label       = "reason"
      extractor   = "EXTRACT(jsonPayload.reason)"
    }
    database_away = {
      description = "How often an instance found the database away."
      filter      = "jsonPayload.alert=\"database\""
      label       = "error_code"
      extractor   = "EXTRACT(jsonPayload.\"error.code\")"
    }
    # What Cloud Run says about an instance that did not end by itself: exit, signal, memory, probe.
    instance_crashed = {
      description = "Instances that exited, were killed or failed their probes."
      filter      = "logName=\"projects/${var.project_id}/logs/run.googleapis.com%2Fvarlog%2Fsystem\" AND (severity>=ERROR OR textPayload=~\"Container called exit\\([1-9]|terminated on signal|Memory limit of|[Pp]robe failed\")"
      label       = "revision"
      extractor   = "EXTRACT(resource.labels.revision_name)"
    }
  }
}

resource "google_logging_metric" "this" {
  for_each = local.log_metrics

  name        = "${var.name}/${each.key}"
  description = each.value.description
  filter      = "${local.service_logs} AND ${each.value.filter}"

  label_extractors = {
    (each.value.label) = each.value.extractor
  }

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
    unit        = "1"

    labels {
      key        = each.value.label
      value_type = "STRING"
    }
  }
}
