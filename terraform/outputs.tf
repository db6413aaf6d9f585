output "service_uri" {
  description = "Address of the service."
  value       = google_cloud_run_v2_service.this.uri
}

output "candidate_uri" {
  description = "Address of the newest revision, with or without traffic."
  value       = replace(google_cloud_run_v2_service.this.uri, "https://", "https://${local.candidate_tag}---")
}

output "latest_revision" {
  description = "Name of the newest revision."
  value       = google_cloud_run_v2_service.this.latest_created_revision
}

output "trigger_topics" {
  description = "Where events are published to, by trigger."
  value       = local.topic_of
}

output "push_subscriptions" {
  description = "Subscription of each trigger."
  value       = { for name, it in google_pubsub_subscription.push : name => it.name }
}

output "events_topic" {
  description = "Topic of downstream events."
  value       = google_pubsub_topic.events.id
}

output "dead_letter_subscription" {
  description = "Where dead letters are pulled from."
  value       = google_pubsub_subscription.dead_letters.name
}

output "smoke_topic" {
  description = "What is published here reaches the newest revision only."
  value       = google_pubsub_topic.smoke.name
}

output "push_audience" {
  description = "Audience of the push tokens."
  value       = local.push_audience
}

output "push_service_account" {
  description = "Account of the push tokens."
  value       = local.push_account
}

output "database_instance" {
  description = "Connection name of the database, if there is one."
  value       = var.database.enabled ? google_sql_database_instance.this[0].connection_name : null
}

output "dashboard" {
  description = "The dashboard."
  value       = "https://console.cloud.google.com/monitoring/dashboards?project=${var.project_id}"
}
