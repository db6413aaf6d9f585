variable "project_id" {
  description = "Project that everything lives in."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "A project id has 6 to 30 lower-case letters, digits and hyphens, and starts with a letter."
  }
}

variable "region" {
  description = "Region of the state bucket, the image repository and the triggers."
  type        = string
  default     = "europe-west1"

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]$", var.region))
    error_message = "A region looks like europe-west1."
  }
}

variable "name" {
  description = "Name of the service; the prefix of accounts, secrets and topics. The same in both folders."
  type        = string
  default     = "hookyard"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}[a-z0-9]$", var.name)) && !startswith(var.name, "goog")
    error_message = "3 to 22 lower-case letters, digits and hyphens, starting with a letter and not with goog (Pub/Sub refuses that). Accounts add a suffix and may have 30."
  }
}

variable "state_bucket" {
  description = "Name of the bucket for Terraform's state; unset = <project_id>-<name>-tfstate."
  type        = string
  default     = null

  validation {
    condition     = var.state_bucket == null || can(regex("^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$", var.state_bucket))
    error_message = "A bucket name has 3 to 63 lower-case letters, digits, dots, hyphens and underscores."
  }
}

variable "secret_rotation_days" {
  description = "After this many days a secret is due for rotation: it is labelled with it, the runbook says how."
  type        = number
  default     = 90

  validation {
    condition     = var.secret_rotation_days >= 1 && var.secret_rotation_days <= 365 && floor(var.secret_rotation_days) == var.secret_rotation_days
    error_message = "A whole number of days from 1 to 365."
  }
}

variable "keep_images" {
  description = "How many images are kept for rolling back; older ones without a tag go after 30 days."
  type        = number
  default     = 20

  validation {
    condition     = var.keep_images >= 3 && var.keep_images <= 200 && floor(var.keep_images) == var.keep_images
    error_message = "A whole number from 3 to 200."
  }
}

variable "database" {
  description = "Prepare the durable mode: Cloud SQL's API, the runtime's right to connect and the DATABASE_URL secret."
  type        = bool
  default     = false
}

variable "admin_read_token" {
  description = "Prepare ADMIN_READ_TOKEN: the secret of those who may look and change nothing, the metrics sidecar among them."
  type        = bool
  default     = false
}

variable "bridge" {
  description = "Prepare the bridge between Hasura and Pub/Sub: its account and the secret it shares with Hasura."
  type        = bool
  default     = true
}

variable "metrics_sidecar" {
  description = "Prepare the metrics sidecar: the runtime may write metrics and traces."
  type        = bool
  default     = true
}

variable "repository" {
  description = "Repository that Cloud Build listens to: a 2nd-generation connection's projects/P/locations/R/connections/C/repositories/N. Unset = no trigger is made."
  type        = string
  default     = null

  validation {
    condition     = var.repository == null || can(regex("^projects/[^/]+/locations/[^/]+/connections/[^/]+/repositories/[^/]+$", var.repository))
    error_message = "projects/P/locations/R/connections/C/repositories/N, as `gcloud builds repositories list --connection=C --region=R --uri` shows it."
  }
}

variable "deploy_branch" {
  description = "Regular expression of the branch that is deployed."
  type        = string
  default     = "^main$"

  validation {
    condition     = startswith(var.deploy_branch, "^") && endswith(var.deploy_branch, "$")
    error_message = "Anchor it with ^ and $, or a branch with a similar name is deployed too."
  }
}

variable "deploy_approval" {
  description = "A person has to approve each deployment in Cloud Build."
  type        = bool
  default     = true
}

variable "deploy_substitutions" {
  description = "Substitutions of the deploying trigger (see cloudbuild.yaml), for example { _TFVARS = \"prod.tfvars\" }."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name, _ in var.deploy_substitutions : can(regex("^_[A-Z0-9_]+$", name))])
    error_message = "Names start with an underscore and have upper-case letters, digits and underscores."
  }
}

variable "labels" {
  description = "Labels on everything that takes some."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for k, v in var.labels : can(regex("^[a-z][a-z0-9_-]{0,62}$", k)) && can(regex("^[a-z0-9_-]{0,63}$", v))])
    error_message = "Keys and values have at most 63 lower-case letters, digits, hyphens and underscores; keys start with a letter."
  }
}
