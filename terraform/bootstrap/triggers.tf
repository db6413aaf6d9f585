# Cloud Build's triggers, when the repository is connected. Connecting one is a click-through with
# the host of the repository and is described in docs/DEPLOY.md.

resource "google_cloudbuild_trigger" "deploy" {
  count = var.repository == null ? 0 : 1

  name            = "${var.name}-deploy"
  description     = "Builds, scans, deploys without traffic, smoke-tests, shifts traffic"
  location        = var.region
  filename        = "cloudbuild.yaml"
  service_account = google_service_account.deployer.id
  substitutions = merge(var.deploy_substitutions, {
    _NAME         = var.name
    _REGION       = var.region
    _STATE_BUCKET = google_storage_bucket.state.name
  })

  approval_config {
    approval_required = var.deploy_approval
  }

  repository_event_config {
    repository = var.repository

    push {
      branch = var.deploy_branch
    }
  }
}

# A pull request runs its author's code. It gets an identity that can write its log and no more.
resource "google_service_account" "tester" {
  count = var.repository == null ? 0 : 1

  account_id   = "${var.name}-test"
  display_name = "${var.name}: Cloud Build tests of pull requests"
}

resource "google_project_iam_member" "tester" {
  count = var.repository == null ? 0 : 1

  project = var.project_id
  role    = "roles/logging.logWriter"
  member  = google_service_account.tester[0].member
}

resource "google_cloudbuild_trigger" "pull_request" {
  count = var.repository == null ? 0 : 1

  name            = "${var.name}-pull-request"
  description     = "Tests a pull request; deploys nothing"
  location        = var.region
  filename        = "scripts/cloudbuild/pull-request.yaml"
  service_account = google_service_account.tester[0].id

  repository_event_config {
    repository = var.repository

    pull_request {
      branch          = var.deploy_branch
      comment_control = "COMMENTS_ENABLED_FOR_EXTERNAL_CONTRIBUTORS_ONLY"
    }
  }
}
