variable "bridge" {
  description = <<-TEXT
    Deploy `hookyard bridge`, which Hasura's event triggers call and which publishes their events;
    unset = somebody else publishes. Needs `bridge = true` in bootstrap/.
    trigger: which of `triggers` it publishes to; event types are told apart by the service, so one
    topic can take all of Hasura's triggers.
    key_columns: columns of the ordering key by table, such as { "orders" = ["region", "number"] };
    others use id.
    ingress: INGRESS_TRAFFIC_ALL for Hasura Cloud, INGRESS_TRAFFIC_INTERNAL_ONLY for one in the VPC.
    timeout_seconds: from webhook to confirmation; below the timeout of Hasura's triggers (60).
  TEXT
  type = object({
    trigger         = string
    key_columns     = optional(map(list(string)), {})
    ingress         = optional(string, "INGRESS_TRAFFIC_ALL")
    timeout_seconds = optional(number, 30)
    min_instances   = optional(number, 1)
    max_instances   = optional(number, 10)
  })
  default = null

  validation {
    condition     = var.bridge == null || try(contains(keys(var.triggers), var.bridge.trigger), false)
    error_message = "trigger: one of the keys of `triggers`."
  }

  validation {
    condition     = var.bridge == null || contains(["INGRESS_TRAFFIC_ALL", "INGRESS_TRAFFIC_INTERNAL_ONLY", "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"], try(var.bridge.ingress, ""))
    error_message = "ingress: INGRESS_TRAFFIC_ALL, INGRESS_TRAFFIC_INTERNAL_ONLY or INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER."
  }

  validation {
    condition     = var.bridge == null || try(var.bridge.timeout_seconds >= 1 && var.bridge.timeout_seconds <= 55, false)
    error_message = "timeout_seconds: from 1 to 55."
  }

  validation {
    condition     = var.bridge == null || try(var.bridge.min_instances >= 0 && var.bridge.max_instances >= 1 && var.bridge.max_instances >= var.bridge.min_instances, false)
    error_message = "0 <= min_instances <= max_instances, and at least one."
  }

  validation {
    condition     = alltrue([for table, columns in try(var.bridge.key_columns, {}) : can(regex("^[^=,+]+$", table)) && length(columns) > 0 && alltrue([for column in columns : can(regex("^[^=,+]+$", column))])])
    error_message = "key_columns: names of tables and their columns, without = , and +."
  }
}
