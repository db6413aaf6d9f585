# What has to exist before the first deployment, and what a deployment may not change by itself:
# APIs, state, images, identities, secrets, rights. Applied by an owner of the project, seldom.

data "google_project" "this" {
  project_id = var.project_id

  depends_on = [google_project_service.this["cloudresourcemanager.googleapis.com"]]
}

locals {
  labels = merge(var.labels, { app = var.name })

  apis = toset(concat([
    "artifactregistry.googleapis.com",
    "cloudbuild.googleapis.com",
    "cloudresourcemanager.googleapis.com",
    "iam.googleapis.com",
    "iamcredentials.googleapis.com",
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "ondemandscanning.googleapis.com",
    "pubsub.googleapis.com",
    "run.googleapis.com",
    "secretmanager.googleapis.com",
  ], var.database ? ["sqladmin.googleapis.com"] : [], var.metrics_sidecar ? ["cloudtrace.googleapis.com"] : []))
}

resource "google_project_service" "this" {
  for_each = local.apis

  project            = var.project_id
  service            = each.value
  disable_on_destroy = false # others in the project may use it
}

# Terraform's state. It holds no secret values (those are never given to Terraform), yet it says
# how everything is built, so nobody but the deployer and the owners reads it.
resource "google_storage_bucket" "state" {
  name                        = coalesce(var.state_bucket, "${var.project_id}-${var.name}-tfstate")
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false # a bucket with state in it cannot be deleted
  labels                      = local.labels

  versioning {
    enabled = true
  }

  lifecycle_rule {
    condition {
      num_newer_versions = 30
      with_state         = "ARCHIVED"
    }
    action {
      type = "Delete"
    }
  }
}

resource "google_artifact_registry_repository" "images" {
  repository_id = var.name
  location      = var.region
  format        = "DOCKER"
  description   = "Images of ${var.name}"
  labels        = local.labels

  # Deployments name images by digest. The build cache is a tag that moves, hence no immutable_tags.
  docker_config {
    immutable_tags = false
  }

  cleanup_policies {
    id     = "keep-for-rollback"
    action = "KEEP"

    most_recent_versions {
      keep_count = var.keep_images
    }
  }

  cleanup_policies {
    id     = "drop-old"
    action = "DELETE"

    condition {
      tag_state  = "ANY"
      older_than = "2592000s"
    }
  }

  depends_on = [google_project_service.this]
}
