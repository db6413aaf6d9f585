output "state_bucket" {
  description = "Bucket of Terraform's state, for -backend-config of terraform/."
  value       = google_storage_bucket.state.name
}

output "image_repository" {
  description = "Where images go: REGION-docker.pkg.dev/PROJECT/REPOSITORY."
  value       = "${var.region}-docker.pkg.dev/${var.project_id}/${google_artifact_registry_repository.images.repository_id}"
}

output "service_accounts" {
  description = "E-mail of each identity."
  value = {
    runtime  = google_service_account.runtime.email
    push     = google_service_account.push.email
    deployer = google_service_account.deployer.email
  }
}

output "secrets" {
  description = "Secrets that need a value before the first deployment (scripts/set-secret.sh)."
  value       = sort([for secret in google_secret_manager_secret.this : secret.secret_id])
}
