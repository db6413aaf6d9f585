variable "image" {
  description = "Image to run, by digest: REGION-docker.pkg.dev/PROJECT/REPOSITORY/NAME@sha256:…. A tag could be moved to another image behind Terraform's back."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9.-]+(:[0-9]+)?/[a-z0-9._/-]+@sha256:[0-9a-f]{64}$", var.image))
    error_message = "Name the image by digest (…@sha256:<64 hex digits>); scripts/cloudbuild/build-image.sh prints it."
  }
}

variable "stable_revision" {
  description = "Revision that keeps all traffic while the new one is tested under the tag `candidate`; unset = the new revision takes all traffic at once (the first deployment). scripts/cloudbuild/plan.sh sets it."
  type        = string
  default     = null

  validation {
    condition     = var.stable_revision == null || can(regex("^[a-z][a-z0-9-]{0,62}$", var.stable_revision))
    error_message = "The name of a revision, such as hookyard-00012-abc."
  }
}

variable "push_auth_mode" {
  description = "Who checks push tokens. verify: the service checks the signature itself, Cloud Run's invoker check is off. platform: Cloud Run's invoker check does, only the push account may call."
  type        = string
  default     = "verify"

  validation {
    condition     = contains(["verify", "platform"], var.push_auth_mode)
    error_message = "verify or platform."
  }
}

variable "push_audience" {
  description = "Audience of the push tokens; unset = <name>.<project_id>. Any string, compared exactly."
  type        = string
  default     = null

  validation {
    condition     = var.push_audience == null || can(regex("^[!-+\\--~]{1,200}$", var.push_audience))
    error_message = "1 to 200 printable characters without spaces and commas (the service splits its list at commas)."
  }
}

variable "ingress" {
  description = "From where the service can be reached. Pub/Sub's push of this project counts as internal. INGRESS_TRAFFIC_ALL is needed for the uptime check and for callers outside of the project."
  type        = string
  default     = "INGRESS_TRAFFIC_INTERNAL_ONLY"

  validation {
    condition     = contains(["INGRESS_TRAFFIC_INTERNAL_ONLY", "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER", "INGRESS_TRAFFIC_ALL"], var.ingress)
    error_message = "INGRESS_TRAFFIC_INTERNAL_ONLY, INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER or INGRESS_TRAFFIC_ALL."
  }
}

variable "hasura_graphql_url" {
  description = "Full URL of Hasura's GraphQL endpoint, such as https://hasura.example.com/v1/graphql."
  type        = string

  validation {
    condition     = can(regex("^https://[^/@?#\\s]+/[^?#\\s]*$", var.hasura_graphql_url))
    error_message = "An https URL with a path and without user name, query or fragment."
  }
}

variable "chargebee_url" {
  description = "Base URL of the Chargebee site, such as https://acme.chargebee.com."
  type        = string

  validation {
    condition     = can(regex("^https://[^/@?#\\s]+/?$", var.chargebee_url))
    error_message = "An https URL without path, user name or query, such as https://acme.chargebee.com."
  }
}

variable "chargebee_product_catalog" {
  description = "Product catalogue of the site: 2 (items) or 1 (plans and addons)."
  type        = number
  default     = 2

  validation {
    condition     = contains([1, 2], var.chargebee_product_catalog)
    error_message = "1 or 2."
  }
}

variable "cpu" {
  description = "CPUs of an instance: 1, 2, 4 or 8."
  type        = number
  default     = 1

  validation {
    condition     = contains([1, 2, 4, 8], var.cpu)
    error_message = "1, 2, 4 or 8; less than 1 would allow one request at a time only."
  }
}

variable "memory_mib" {
  description = "Memory of an instance in MiB. A request in flight may hold its body several times over (at most 14 MiB each)."
  type        = number
  default     = 512

  validation {
    condition     = var.memory_mib >= 256 && var.memory_mib <= 32768 && floor(var.memory_mib) == var.memory_mib
    error_message = "A whole number of MiB from 256 to 32768."
  }

  validation {
    condition     = var.cpu < 4 || var.memory_mib >= 2048
    error_message = "Cloud Run wants at least 2048 MiB with 4 CPUs and more."
  }
}

variable "concurrency" {
  description = "Requests an instance works on at once; also MAX_IN_FLIGHT. Most of the time of a handler is waiting for upstreams."
  type        = number
  default     = 80

  validation {
    condition     = var.concurrency >= 1 && var.concurrency <= 1000 && floor(var.concurrency) == var.concurrency
    error_message = "A whole number from 1 to 1000."
  }
}

variable "min_instances" {
  description = "Instances that are always there. With 0 the first event after a quiet time waits for a start, and the memory of seen events is gone."
  type        = number
  default     = 1

  validation {
    condition     = var.min_instances >= 0 && var.min_instances <= 100 && floor(var.min_instances) == var.min_instances
    error_message = "A whole number from 0 to 100."
  }

  validation {
    condition     = var.min_instances >= 1 || !var.database.enabled
    error_message = "With a database at least 1: relay, worker and retries work between requests, and without an instance nothing of them does."
  }
}

variable "max_instances" {
  description = "Most instances; bounds what Chargebee and Hasura see at once: max_instances x concurrency."
  type        = number
  default     = 10

  validation {
    condition     = var.max_instances >= 1 && var.max_instances <= 1000 && floor(var.max_instances) == var.max_instances
    error_message = "A whole number from 1 to 1000."
  }

  validation {
    condition     = var.max_instances >= var.min_instances
    error_message = "Not below min_instances."
  }

  # A deployment starts the new revision's first instances before the old one's have ended. Ten are
  # Cloud SQL's own and whoever looks in with psql.
  validation {
    condition     = !var.database.enabled || var.database.connections * (var.max_instances + var.min_instances) <= local.database_connections - 10
    error_message = "database.connections x (max_instances + min_instances) must stay 10 below what the database takes (a tier of 3.75 to 6 GB: 100), or instances are refused when they are needed most: lower max_instances or database.connections, take a larger tier, or set database.max_connections (each costs it about 10 MB)."
  }
}

variable "cpu_always_allocated" {
  description = "Keep the CPU between requests, too (instance-based billing). Needed by the metrics sidecar and by the durable mode, whose relay, worker and retries work between requests; without both, false is cheaper at few events."
  type        = bool
  default     = true

  validation {
    condition     = var.cpu_always_allocated || (var.metrics_sidecar == null && !var.database.enabled)
    error_message = "The metrics sidecar and the durable mode work between requests: leave it true, or switch them off."
  }
}

variable "vpc" {
  description = "Send outgoing traffic through a VPC, for a Hasura without a public address; unset = no VPC. egress: PRIVATE_RANGES_ONLY or ALL_TRAFFIC (then the VPC needs Cloud NAT for Chargebee)."
  type = object({
    network    = string
    subnetwork = string
    egress     = optional(string, "PRIVATE_RANGES_ONLY")
    tags       = optional(list(string), [])
  })
  default = null

  validation {
    condition     = var.vpc == null || contains(["PRIVATE_RANGES_ONLY", "ALL_TRAFFIC"], try(var.vpc.egress, ""))
    error_message = "egress: PRIVATE_RANGES_ONLY or ALL_TRAFFIC."
  }
}

variable "log_level" {
  description = "error, warn, info, debug, or a filter such as info,hookyard::clients=debug."
  type        = string
  default     = "info"

  validation {
    condition     = can(regex("^[A-Za-z0-9_:=,\\[\\]{}-]{1,200}$", var.log_level))
    error_message = "A level, or a filter in tracing's notation."
  }
}

variable "environment" {
  description = "More environment variables of the service, such as DEDUPE_CAPACITY. No secrets: they would be in the state."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name, _ in var.environment : can(regex("^[A-Z][A-Z0-9_]*$", name))])
    error_message = "Names have upper-case letters, digits and underscores."
  }

  validation {
    condition     = alltrue([for name, _ in var.environment : !can(regex("SECRET|TOKEN|PASSWORD|API_KEY|PRIVATE_KEY|DATABASE_URL|CREDENTIALS|OTLP_HEADERS", name))])
    error_message = "This looks like a secret. Secrets go to Secret Manager (scripts/set-secret.sh), never through Terraform."
  }

  validation {
    condition = length(setintersection(keys(var.environment), [
      "PORT", "HOST", "K_SERVICE", "K_REVISION", "K_CONFIGURATION", "LOG_FORMAT", "LOG_LEVEL",
      "PUSH_AUTH_MODE", "PUSH_AUDIENCE", "PUSH_SERVICE_ACCOUNT", "OIDC_ISSUER", "OIDC_JWKS_URL",
      "HASURA_GRAPHQL_URL", "CHARGEBEE_URL", "CHARGEBEE_SITE", "CHARGEBEE_PRODUCT_CATALOG",
      "EVENT_BUS_TYPE", "GOOGLE_CLOUD_PROJECT", "EVENTS_TOPIC", "DEAD_LETTER_TOPIC",
      "PUBSUB_EMULATOR_HOST", "ACK_DEADLINE_MS", "HANDLER_TIMEOUT_MS", "MAX_IN_FLIGHT",
      "SHUTDOWN_GRACE_MS", "DEAD_LETTER_SUBSCRIPTION", "DATABASE_MAX_CONNECTIONS",
      "ENABLE_POLLING", "RETRY_OWNER",
    ])) == 0
    error_message = "One of these is set by Terraform from another variable (or by Cloud Run), so that it matches the subscriptions; or must not be set in production at all (emulator, another token issuer)."
  }
}

variable "admin_read_token" {
  description = "The service has ADMIN_READ_TOKEN, which may look (metrics, status, dead letters without payloads) and change nothing; the metrics sidecar then uses it instead of ADMIN_TOKEN. Only with `admin_read_token = true` in bootstrap/ and a value in the secret (scripts/set-secret.sh --generate admin-read-token)."
  type        = bool
  default     = false
}

variable "secret_versions" {
  description = "Version of each secret to run with, by its name without the prefix, such as { admin-token = \"3\" }; others run with latest, which is read when an instance starts."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name, _ in var.secret_versions : contains(["hasura-admin-secret", "chargebee-api-key", "admin-token", "admin-read-token", "bridge-secret", "database-url"], name)])
    error_message = "Known are hasura-admin-secret, chargebee-api-key, admin-token, admin-read-token, bridge-secret and database-url."
  }

  validation {
    condition     = alltrue([for _, version in var.secret_versions : version == "latest" || can(regex("^[1-9][0-9]*$", version))])
    error_message = "A version is a number or latest."
  }
}

variable "metrics_sidecar" {
  description = "Run an OpenTelemetry collector beside the service, which takes /metrics to Managed Prometheus and traces to Cloud Trace; unset = no sidecar, no traces, and no alert on the age of events. image: an opentelemetry-collector-contrib. trace_ratio: share of the traces to keep where the publisher has not decided."
  type = object({
    image       = string
    interval    = optional(string, "30s")
    memory_mib  = optional(number, 256)
    cpu_millis  = optional(number, 250)
    trace_ratio = optional(number, 0.1)
  })
  default = null

  validation {
    condition     = var.metrics_sidecar == null || can(regex("^[a-z0-9./_-]+(:[A-Za-z0-9._-]+|@sha256:[0-9a-f]{64})$", try(var.metrics_sidecar.image, "")))
    error_message = "An image with a tag or, better, a digest."
  }

  validation {
    condition     = var.metrics_sidecar == null || can(regex("^[1-9][0-9]*s$", try(var.metrics_sidecar.interval, "")))
    error_message = "interval: seconds, such as 30s."
  }

  validation {
    condition     = var.metrics_sidecar == null || try(var.metrics_sidecar.trace_ratio >= 0 && var.metrics_sidecar.trace_ratio <= 1, false)
    error_message = "trace_ratio: from 0 to 1."
  }
}
