# Places for secrets. Values are put in by hand (scripts/set-secret.sh): Terraform never sees one,
# so none can be in a plan, a state or a build log.

locals {
  secrets = toset(concat(
    ["hasura-admin-secret", "chargebee-api-key", "admin-token"],
    var.admin_read_token ? ["admin-read-token"] : [],
    var.database ? ["database-url"] : [],
    var.bridge ? ["bridge-secret"] : [],
  ))
}

resource "google_secret_manager_secret" "this" {
  for_each = local.secrets

  secret_id = "${var.name}-${each.value}"
  labels    = merge(local.labels, { rotate_after_days = tostring(var.secret_rotation_days) })

  # A version that was replaced by mistake can be had back for a day.
  version_destroy_ttl = "86400s"

  replication {
    auto {}
  }

  depends_on = [google_project_service.this]
}

resource "google_secret_manager_secret_iam_member" "runtime" {
  for_each = { for name, secret in google_secret_manager_secret.this : name => secret if name != "bridge-secret" }

  secret_id = each.value.secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.runtime.member
}

resource "google_secret_manager_secret_iam_member" "bridge" {
  count = var.bridge ? 1 : 0

  secret_id = google_secret_manager_secret.this["bridge-secret"].secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.bridge[0].member
}
