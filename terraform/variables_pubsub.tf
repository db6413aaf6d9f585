variable "triggers" {
  description = <<-TEXT
    What the service is fed with: one topic and one push subscription for each entry. The key names
    both, so that the topic of a Hasura trigger can have the trigger's name.
    topic: full name (projects/P/topics/T) of a topic that exists already, instead of making one.
    publishers: who may publish to it, such as serviceAccount:bridge@acme.iam.gserviceaccount.com.
    ordered: deliver messages of one ordering key one after another; slower, and a failing one
    holds back those behind it.
    filter: Pub/Sub's filter on attributes, such as attributes.table = "contracts".
  TEXT
  type = map(object({
    topic      = optional(string)
    publishers = optional(set(string), [])
    ordered    = optional(bool, false)
    filter     = optional(string)
  }))
  default = {
    contract-events = {}
  }

  validation {
    condition     = length(var.triggers) > 0
    error_message = "At least one, or nothing ever reaches the service."
  }

  validation {
    condition     = alltrue([for name, _ in var.triggers : can(regex("^[A-Za-z][A-Za-z0-9._~%+-]{2,199}$", name)) && !startswith(name, "goog")])
    error_message = "A name has 3 to 200 letters, digits and ._~%+-, starts with a letter and not with goog."
  }

  validation {
    condition     = alltrue([for _, it in var.triggers : it.topic == null || can(regex("^projects/[^/]+/topics/[^/]+$", it.topic))])
    error_message = "topic: projects/P/topics/T."
  }

  validation {
    condition     = alltrue(flatten([for _, it in var.triggers : [for who in it.publishers : can(regex("^(serviceAccount|group|user|principal|principalSet):.+$", who))]]))
    error_message = "publishers: serviceAccount:…, group:…, user:…, principal:… or principalSet:…; never allUsers or allAuthenticatedUsers."
  }

  validation {
    condition     = alltrue([for _, it in var.triggers : it.filter == null || try(length(it.filter) <= 256, false)])
    error_message = "filter: at most 256 bytes."
  }

  validation {
    condition     = length(setintersection(keys(var.triggers), ["${var.name}-events", "${var.name}-dead-letters", "${var.name}-smoke"])) == 0
    error_message = "<name>-events, <name>-dead-letters and <name>-smoke are the service's own topics."
  }
}

variable "ack_deadline_seconds" {
  description = "Pub/Sub's ack deadline, which for push is the time until it gives up on a request; also ACK_DEADLINE_MS."
  type        = number
  default     = 60

  validation {
    condition     = var.ack_deadline_seconds >= 10 && var.ack_deadline_seconds <= 600 && floor(var.ack_deadline_seconds) == var.ack_deadline_seconds
    error_message = "A whole number from 10 to 600, Pub/Sub's own limits."
  }
}

variable "handler_timeout_seconds" {
  description = "Time for all handlers of one delivery, their retries included; also HANDLER_TIMEOUT_MS."
  type        = number
  default     = 50

  validation {
    condition     = var.handler_timeout_seconds >= 1 && floor(var.handler_timeout_seconds) == var.handler_timeout_seconds
    error_message = "A whole number of at least 1."
  }

  validation {
    condition     = var.handler_timeout_seconds <= var.ack_deadline_seconds - 5
    error_message = "At least 5 seconds below ack_deadline_seconds, or Pub/Sub delivers again while a handler still runs."
  }
}

variable "retry" {
  description = "Waiting times between deliveries of a message that was not acknowledged, and how often it is delivered before Pub/Sub itself moves it to the dead letters. The service keeps hopeless events at once, so only passing trouble counts here: 100 attempts with up to 600 s between them last about 15 hours."
  type = object({
    minimum_backoff_seconds = optional(number, 10)
    maximum_backoff_seconds = optional(number, 600)
    max_delivery_attempts   = optional(number, 100)
  })
  default = {}

  validation {
    condition     = var.retry.minimum_backoff_seconds >= 0 && var.retry.minimum_backoff_seconds <= var.retry.maximum_backoff_seconds && var.retry.maximum_backoff_seconds <= 600
    error_message = "0 <= minimum_backoff_seconds <= maximum_backoff_seconds <= 600."
  }

  validation {
    condition     = var.retry.max_delivery_attempts >= 5 && var.retry.max_delivery_attempts <= 100 && floor(var.retry.max_delivery_attempts) == var.retry.max_delivery_attempts
    error_message = "max_delivery_attempts: a whole number from 5 to 100, Pub/Sub's own limits."
  }
}

variable "retention_days" {
  description = "How long messages are kept. subscription: unacknowledged ones. topic: all, for seeking back to a time. dead_letters: those nobody has worked off yet; they hold row data, see docs/RUNBOOK.md."
  type = object({
    subscription = optional(number, 7)
    topic        = optional(number, 7)
    dead_letters = optional(number, 14)
  })
  default = {}

  validation {
    condition     = alltrue([for days in values(var.retention_days) : days >= 1 && days <= 31 && floor(days) == days])
    error_message = "Whole numbers from 1 to 31."
  }
}

variable "event_consumers" {
  description = "Who may make subscriptions on the topic of downstream events, such as group:billing@example.com."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for who in var.event_consumers : can(regex("^(serviceAccount|group|user|principal|principalSet):.+$", who))])
    error_message = "serviceAccount:…, group:…, user:…, principal:… or principalSet:…; never allUsers or allAuthenticatedUsers."
  }
}

variable "dead_letter_readers" {
  description = "Who may read and acknowledge dead letters, such as group:on-call@example.com. They see row data."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for who in var.dead_letter_readers : can(regex("^(serviceAccount|group|user|principal|principalSet):.+$", who))])
    error_message = "serviceAccount:…, group:…, user:…, principal:… or principalSet:…; never allUsers or allAuthenticatedUsers."
  }
}

variable "message_regions" {
  description = "Regions in which Pub/Sub may store messages, such as [\"europe-west1\"]; empty = as the organisation's policy says."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for region in var.message_regions : can(regex("^[a-z]+-[a-z]+[0-9]$", region))])
    error_message = "Regions look like europe-west1."
  }
}
