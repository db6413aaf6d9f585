variable "database" {
  description = "Cloud SQL for the durable mode (DATABASE_URL). Only with `database = true` in bootstrap/. connections: most of one instance (DATABASE_MAX_CONNECTIONS). max_connections: most of the database; unset = Cloud SQL's own number for the memory of the tier. polling: work off the `events` table that other services insert into (ENABLE_POLLING). retry_owner: pubsub (push answers 503 and Pub/Sub delivers again) or self (push keeps the event, answers 200, and the worker retries it; needs polling)."
  type = object({
    enabled           = optional(bool, false)
    tier              = optional(string, "db-custom-1-3840")
    availability_type = optional(string, "REGIONAL")
    disk_gib          = optional(number, 20)
    connections       = optional(number, 8)
    max_connections   = optional(number)
    polling           = optional(bool, false)
    retry_owner       = optional(string, "pubsub")
  })
  default = {}

  validation {
    condition     = contains(["REGIONAL", "ZONAL"], var.database.availability_type)
    error_message = "availability_type: REGIONAL (a standby in another zone) or ZONAL."
  }

  validation {
    condition     = var.database.disk_gib >= 10 && floor(var.database.disk_gib) == var.database.disk_gib
    error_message = "disk_gib: a whole number of at least 10."
  }

  validation {
    condition     = can(regex("^db-(f1-micro|g1-small|custom-[1-9][0-9]*-[1-9][0-9]{3,5})$", var.database.tier))
    error_message = "tier: db-custom-CPUS-MEMORY_IN_MB, such as db-custom-2-7680, db-g1-small or db-f1-micro."
  }

  validation {
    condition     = var.database.connections >= 3 && floor(var.database.connections) == var.database.connections
    error_message = "connections: a whole number of at least 3; one listens, and reads must not wait for writes."
  }

  validation {
    condition     = var.database.max_connections == null || try(var.database.max_connections >= 25 && var.database.max_connections <= 10000 && floor(var.database.max_connections) == var.database.max_connections, false)
    error_message = "max_connections: a whole number from 25 to 10000, or unset."
  }

  validation {
    condition     = contains(["pubsub", "self"], var.database.retry_owner)
    error_message = "retry_owner: pubsub or self."
  }

  validation {
    condition     = var.database.retry_owner == "pubsub" || var.database.polling
    error_message = "retry_owner = \"self\" needs polling = true: nobody else would retry."
  }

  validation {
    condition     = var.database.enabled || !var.database.polling
    error_message = "polling needs a database."
  }
}

variable "publish_dead_letters" {
  description = "Where the service puts events it gives up on. true: on the topic of dead letters (DEAD_LETTER_TOPIC). false: only into the table event_dead_letters, where `hookyard dead-letters` finds them; needs the database. Both, true with the database: into the table, and a copy on the topic for subscriptions of your own there (the service drains its own one, recognises its copies and keeps nothing twice). Unset = false with the database, true without. The topic itself is there in any case: Pub/Sub's own dead letters come by it, and with the database are drained into the table (DEAD_LETTER_SUBSCRIPTION)."
  type        = bool
  default     = null

  validation {
    condition     = var.database.enabled || var.publish_dead_letters != false
    error_message = "Without a database the topic is the only place that keeps them."
  }
}
