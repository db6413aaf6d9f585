variable "notification_channels" {
  description = "Where alerts go: full names of notification channels, as `gcloud beta monitoring channels list --format='value(name)'` shows them. Empty = alerts open incidents that nobody is told about."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for channel in var.notification_channels : can(regex("^projects/[^/]+/notificationChannels/[0-9]+$", channel))])
    error_message = "projects/P/notificationChannels/NUMBER."
  }
}

variable "alert_thresholds" {
  description = "When alerts fire: oldest_unacked_seconds, push_error_ratio (0 to 1) and event_age_p99_seconds over 5 minutes, rejected_per_5_minutes (401 and 403); with a database outbox_seconds (age of what waits to be published) and due_seconds (age of the oldest due row of the events table)."
  type = object({
    oldest_unacked_seconds = optional(number, 600)
    push_error_ratio       = optional(number, 0.05)
    event_age_p99_seconds  = optional(number, 300)
    rejected_per_5_minutes = optional(number, 5)
    outbox_seconds         = optional(number, 120)
    due_seconds            = optional(number, 600)
  })
  default = {}

  validation {
    condition     = var.alert_thresholds.oldest_unacked_seconds >= 60
    error_message = "oldest_unacked_seconds: at least 60; Cloud Monitoring measures once a minute."
  }

  validation {
    condition     = var.alert_thresholds.push_error_ratio > 0 && var.alert_thresholds.push_error_ratio < 1
    error_message = "push_error_ratio: between 0 and 1."
  }

  validation {
    condition     = var.alert_thresholds.event_age_p99_seconds >= 1 && var.alert_thresholds.event_age_p99_seconds <= 604800
    error_message = "event_age_p99_seconds: from 1 to 604800, the largest bucket of the histogram."
  }

  validation {
    condition     = var.alert_thresholds.rejected_per_5_minutes >= 0
    error_message = "rejected_per_5_minutes: not negative."
  }

  validation {
    condition     = var.alert_thresholds.outbox_seconds >= 30 && var.alert_thresholds.due_seconds >= 30
    error_message = "outbox_seconds and due_seconds: at least 30; they are measured every 10 seconds and scraped every 30."
  }
}

variable "runbook_url" {
  description = "Where docs/RUNBOOK.md can be read; alerts link to its sections. Unset = alerts name the file."
  type        = string
  default     = null

  validation {
    condition     = var.runbook_url == null || can(regex("^https://[^#\\s]+$", var.runbook_url))
    error_message = "An https URL without a fragment."
  }
}
