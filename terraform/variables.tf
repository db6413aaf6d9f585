variable "project_id" {
  description = "Project that everything lives in; the same as in bootstrap/."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "A project id has 6 to 30 lower-case letters, digits and hyphens, and starts with a letter."
  }
}

variable "region" {
  description = "Region of the service and of the database."
  type        = string
  default     = "europe-west1"

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]$", var.region))
    error_message = "A region looks like europe-west1."
  }
}

variable "name" {
  description = "Name of the service, the prefix of everything else; the same as in bootstrap/."
  type        = string
  default     = "hookyard"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}[a-z0-9]$", var.name)) && !startswith(var.name, "goog")
    error_message = "3 to 22 lower-case letters, digits and hyphens, starting with a letter and not with goog (Pub/Sub refuses that)."
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

variable "deletion_protection" {
  description = "Refuse to delete the service and the database. To take all down: apply with false first."
  type        = bool
  default     = true
}
