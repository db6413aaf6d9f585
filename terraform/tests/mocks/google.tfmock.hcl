# What Google would answer, as far as the tests look at it.
mock_data "google_project" {
  defaults = {
    number = "123456789012"
  }
}

mock_resource "google_cloud_run_v2_service" {
  defaults = {
    uri                     = "https://hookyard-abc123-ew.a.run.app"
    latest_created_revision = "hookyard-00001-abc"
  }
}

mock_resource "google_sql_database_instance" {
  defaults = {
    connection_name = "acme-events-test:europe-west1:hookyard"
  }
}

mock_resource "google_monitoring_uptime_check_config" {
  defaults = {
    uptime_check_id = "health-1"
  }
}
