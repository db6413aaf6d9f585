# Cloud SQL for the durable mode. The user and its password are made by scripts/set-database-user.sh,
# which puts DATABASE_URL into Secret Manager: Terraform's state has neither.

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
