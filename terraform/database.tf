# Cloud SQL for the durable mode. The user and its password are made by scripts/set-database-user.sh,
# which puts DATABASE_URL into Secret Manager: Terraform's state has neither.

locals {
  # Cloud SQL's default max_connections by memory:
  # https://cloud.google.com/sql/docs/postgres/flags#postgres-m
  database_mb = try(tonumber(regex("^db-custom-[0-9]+-([0-9]+)$", var.database.tier)[0]), var.database.tier == "db-g1-small" ? 1700 : 600)
  database_connections = coalesce(var.database.max_connections, [
    for step in [[122880, 1000], [61440, 800], [30720, 600], [15360, 500], [7680, 400], [6144, 200], [3840, 100], [1700, 50], [0, 25]] :
    step[1] if local.database_mb >= step[0]
  ][0])
}

resource "google_sql_database_instance" "this" {
  count = var.database.enabled ? 1 : 0

  name                = var.name
  region              = var.region
  database_version    = "POSTGRES_16"
  deletion_protection = var.deletion_protection

  settings {
    tier                        = var.database.tier
    edition                     = "ENTERPRISE"
    availability_type           = var.database.availability_type
    disk_size                   = var.database.disk_gib
    disk_autoresize             = true
    deletion_protection_enabled = var.deletion_protection
    connector_enforcement       = "REQUIRED" # only through Cloud SQL's own proxy, with IAM
    user_labels                 = local.labels

    dynamic "database_flags" {
      for_each = var.database.max_connections == null ? [] : [var.database.max_connections]

      content {
        name  = "max_connections"
        value = tostring(database_flags.value)
      }
    }

    # No authorised network: the address answers nobody but the connector.
    ip_configuration {
      ipv4_enabled = true
      ssl_mode     = "ENCRYPTED_ONLY"
    }

    backup_configuration {
      enabled                        = true
      point_in_time_recovery_enabled = true
      transaction_log_retention_days = 7

      backup_retention_settings {
        retained_backups = 14
      }
    }

    insights_config {
      query_insights_enabled  = true
      record_client_address   = false
      record_application_tags = false
    }
  }
}

resource "google_sql_database" "this" {
  count = var.database.enabled ? 1 : 0

  name     = var.name
  instance = google_sql_database_instance.this[0].name
}
