# An identity for each task, none of which can do another's work. No key is ever made for any of them.

resource "google_service_account" "runtime" {
  account_id   = "${var.name}-run"
  display_name = "${var.name}: the running service"
  description  = "Publishes to the topics of ${var.name} and reads its secrets; nothing else."

  depends_on = [google_project_service.this]
}

resource "google_service_account" "bridge" {
  count = var.bridge ? 1 : 0

  account_id   = "${var.name}-bridge"
  display_name = "${var.name}: the bridge between Hasura and Pub/Sub"
  description  = "Publishes to one topic and reads one secret; nothing else."

  depends_on = [google_project_service.this]
}

resource "google_service_account" "push" {
  account_id   = "${var.name}-push"
  display_name = "${var.name}: identity of the push subscriptions"
  description  = "Pub/Sub signs push tokens in its name. It has no rights of its own in verify mode."

  depends_on = [google_project_service.this]
}

resource "google_service_account" "deployer" {
  account_id   = "${var.name}-deploy"
  display_name = "${var.name}: Cloud Build deployments"
  description  = "Builds, applies terraform/, shifts traffic."

  depends_on = [google_project_service.this]
}

# Pub/Sub signs tokens as the push account. New projects give its service agent this right on the
# whole project by a default role; this narrower one holds where that was never given or was taken
# away.
resource "google_service_account_iam_member" "pubsub_signs_as_push" {
  service_account_id = google_service_account.push.name
  role               = "roles/iam.serviceAccountOpenIdTokenCreator"
  member             = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}

# Making a service that runs as, or a subscription that signs as, an account takes actAs on it.
resource "google_service_account_iam_member" "deployer_acts_as" {
  for_each = merge({
    runtime = google_service_account.runtime.name
    push    = google_service_account.push.name
    }, var.bridge ? {
    bridge = google_service_account.bridge[0].name
  } : {})

  service_account_id = each.value
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.deployer.member
}

# The smoke test over HTTP (ingress from everywhere) makes itself a push token.
resource "google_service_account_iam_member" "deployer_signs_as_push" {
  service_account_id = google_service_account.push.name
  role               = "roles/iam.serviceAccountOpenIdTokenCreator"
  member             = google_service_account.deployer.member
}

locals {
  deployer_roles = toset(concat([
    "roles/browser",                # the project's number
    "roles/logging.configWriter",   # log-based metrics
    "roles/logging.logWriter",      # the build's own log
    "roles/logging.viewer",         # the smoke test looks for the event's line
    "roles/monitoring.editor",      # alert policies, dashboard, uptime check
    "roles/ondemandscanning.admin", # vulnerability scan
    "roles/pubsub.admin",           # topics, subscriptions and rights on them
    "roles/run.admin",              # the service and its invokers
    "roles/secretmanager.viewer",   # that a secret exists and has a version; not its value
  ], var.database ? ["roles/cloudsql.admin"] : []))

  runtime_roles = toset(concat(
    var.metrics_sidecar ? ["roles/cloudtrace.agent", "roles/monitoring.metricWriter"] : [],
    var.database ? ["roles/cloudsql.client"] : [],
  ))
}

resource "google_project_iam_member" "deployer" {
  for_each = local.deployer_roles

  project = var.project_id
  role    = each.value
  member  = google_service_account.deployer.member
}

resource "google_project_iam_member" "runtime" {
  for_each = local.runtime_roles

  project = var.project_id
  role    = each.value
  member  = google_service_account.runtime.member
}

resource "google_artifact_registry_repository_iam_member" "deployer" {
  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.deployer.member
}

resource "google_storage_bucket_iam_member" "deployer_state" {
  bucket = google_storage_bucket.state.name
  role   = "roles/storage.objectUser"
  member = google_service_account.deployer.member

  # Its own state only, not that of bootstrap/, which holds what the deployer may not do.
  condition {
    title      = "service-state-only"
    expression = "resource.type != \"storage.googleapis.com/Object\" || resource.name.startsWith(\"projects/_/buckets/${google_storage_bucket.state.name}/objects/hookyard/service/\")"
  }
}
