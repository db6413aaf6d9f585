# Names and addresses that several files need. What has to exist before (APIs, accounts, secrets,
# image repository) is made by bootstrap/, and is named here by the same rule as there.

data "google_project" "this" {
  project_id = var.project_id
}

locals {
  labels = merge(var.labels, { app = var.name })

  runtime_account = "${var.name}-run@${var.project_id}.iam.gserviceaccount.com"
  push_account    = "${var.name}-push@${var.project_id}.iam.gserviceaccount.com"

  # A fixed word, not the service's own address: the service would have to know its address before
  # it exists. Pub/Sub puts any string into the token; in platform mode it is a custom audience.
  push_audience = coalesce(var.push_audience, "${var.name}.${var.project_id}")

  agent_domain        = "iam.gserviceaccount.com"
  pubsub_agent        = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.${local.agent_domain}"
  uptime_check_agent  = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-monitoring-notification.${local.agent_domain}"
  is_verifying        = var.push_auth_mode == "verify"
  is_reached_publicly = var.ingress == "INGRESS_TRAFFIC_ALL"
}
