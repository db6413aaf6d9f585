mock_provider "google" {
  source = "./tests/mocks"
}

variables {
  project_id         = "acme-events-test"
  image              = "europe-west1-docker.pkg.dev/acme-events-test/hookyard/hookyard@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  hasura_graphql_url = "https://hasura.acme.example/v1/graphql"
  chargebee_url      = "https://acme.chargebee.com"
}

run "the_service_verifies_tokens_by_itself_by_default" {
  assert {
    condition     = google_cloud_run_v2_service.this.invoker_iam_disabled == true && local.environment["PUSH_AUTH_MODE"] == "verify"
    error_message = "verify mode goes with the invoker check off"
  }
  assert {
    condition     = length(google_cloud_run_v2_service_iam_member.push) == 0 && google_cloud_run_v2_service.this.ingress == "INGRESS_TRAFFIC_INTERNAL_ONLY"
    error_message = "nobody needs to be an invoker, and the door faces inwards"
  }
  assert {
    condition     = length(google_monitoring_uptime_check_config.health) == 0
    error_message = "an uptime check cannot reach an internal service"
  }
}

run "in_platform_mode_only_the_push_account_may_call" {
  variables {
    push_auth_mode = "platform"
  }
  assert {
    condition     = google_cloud_run_v2_service.this.invoker_iam_disabled == false && local.environment["PUSH_AUTH_MODE"] == "platform"
    error_message = "platform mode goes with the invoker check on"
  }
  assert {
    condition     = google_cloud_run_v2_service_iam_member.push[0].member == "serviceAccount:hookyard-push@acme-events-test.iam.gserviceaccount.com"
    error_message = "the push account is the invoker"
  }
  assert {
    condition     = contains(google_cloud_run_v2_service.this.custom_audiences, "hookyard.acme-events-test")
    error_message = "Cloud Run has to accept the audience that is no address"
  }
}

run "budgets_of_service_and_subscription_match" {
  variables {
    ack_deadline_seconds    = 120
    handler_timeout_seconds = 100
    concurrency             = 40
  }
  assert {
    condition     = local.environment["ACK_DEADLINE_MS"] == "120000" && local.environment["HANDLER_TIMEOUT_MS"] == "100000" && local.environment["MAX_IN_FLIGHT"] == "40"
    error_message = "the service is told what the subscription has"
  }
  assert {
    condition     = google_pubsub_subscription.push["contract-events"].ack_deadline_seconds == 120 && google_cloud_run_v2_service.this.template[0].timeout == "130s"
    error_message = "Pub/Sub gives up before Cloud Run does"
  }
}

run "secrets_come_from_secret_manager_only" {
  assert {
    condition     = alltrue([for it in google_cloud_run_v2_service.this.template[0].containers[0].env : !contains(["HASURA_ADMIN_SECRET", "CHARGEBEE_API_KEY", "ADMIN_TOKEN"], it.name) || length(it.value_source) == 1])
    error_message = "a secret stands in the environment as a value"
  }
}

run "the_first_deployment_takes_all_traffic" {
  assert {
    condition     = length(google_cloud_run_v2_service.this.traffic) == 1 && google_cloud_run_v2_service.this.traffic[0].percent == 100
    error_message = "there is nobody else to take it"
  }
}

run "a_later_revision_gets_no_traffic_before_its_smoke_test" {
  variables {
    stable_revision = "hookyard-00041-xyz"
  }
  assert {
    condition     = google_cloud_run_v2_service.this.traffic[0].revision == "hookyard-00041-xyz" && google_cloud_run_v2_service.this.traffic[0].percent == 100
    error_message = "the revision before keeps all"
  }
  assert {
    condition     = google_cloud_run_v2_service.this.traffic[1].percent == 0 && google_cloud_run_v2_service.this.traffic[1].tag == "candidate"
    error_message = "the new one is reached under its tag only"
  }
  assert {
    condition     = google_pubsub_subscription.smoke.push_config[0].push_endpoint == "https://candidate---hookyard-abc123-ew.a.run.app/push"
    error_message = "the smoke test reaches the candidate"
  }
}

run "the_durable_mode_gets_a_closed_database" {
  variables {
    database = { enabled = true }
  }
  assert {
    condition     = google_sql_database_instance.this[0].settings[0].connector_enforcement == "REQUIRED" && length(google_sql_database_instance.this[0].settings[0].ip_configuration[0].authorized_networks) == 0
    error_message = "only Cloud SQL's connector gets in"
  }
  assert {
    condition     = contains(keys(local.secrets), "DATABASE_URL")
    error_message = "its address comes from Secret Manager"
  }
  assert {
    condition     = local.environment["DATABASE_MAX_CONNECTIONS"] == "8" && length(google_sql_database_instance.this[0].settings[0].database_flags) == 0
    error_message = "11 instances with 8 connections fit what the smallest tier takes by itself"
  }
  assert {
    condition     = google_cloud_run_v2_service.this.template[0].containers[0].resources[0].cpu_idle == false && google_cloud_run_v2_service.this.template[0].scaling[0].min_instance_count >= 1
    error_message = "relay and worker have a CPU between requests"
  }
  expect_failures = [check.durable_mode_is_measured]
}

run "dead_letters_are_rows_with_a_database_and_messages_without" {
  variables {
    database = { enabled = true }
  }
  assert {
    condition     = !contains(keys(local.environment), "DEAD_LETTER_TOPIC") && length(google_pubsub_topic_iam_member.runtime_publishes_dead_letters) == 0
    error_message = "the table keeps them"
  }
  assert {
    condition     = local.environment["DEAD_LETTER_SUBSCRIPTION"] == "hookyard-dead-letters" && google_pubsub_subscription.push["contract-events"].dead_letter_policy[0].dead_letter_topic == google_pubsub_topic.dead_letters.id
    error_message = "what Pub/Sub gives up on is drained into the table"
  }
  expect_failures = [check.durable_mode_is_measured]
}

run "a_copy_of_dead_letters_on_request" {
  variables {
    database             = { enabled = true }
    publish_dead_letters = true
  }
  assert {
    condition     = local.environment["DEAD_LETTER_TOPIC"] == "hookyard-dead-letters" && length(google_pubsub_topic_iam_member.runtime_publishes_dead_letters) == 1
    error_message = "on the topic as well"
  }
  expect_failures = [check.durable_mode_is_measured]
}

run "those_who_look_have_a_token_of_their_own" {
  variables {
    admin_read_token = true
    metrics_sidecar  = { image = "otel/opentelemetry-collector-contrib:0.128.0" }
  }
  assert {
    condition     = local.secrets["ADMIN_READ_TOKEN"] == "admin-read-token"
    error_message = "the service knows it"
  }
  assert {
    condition     = [for it in google_cloud_run_v2_service.this.template[0].containers[1].env : it.value_source[0].secret_key_ref[0].secret if it.name == "SCRAPE_TOKEN"] == ["hookyard-admin-read-token"]
    error_message = "the sidecar only looks"
  }
}

run "the_durable_mode_has_its_alerts" {
  variables {
    database        = { enabled = true }
    metrics_sidecar = { image = "otel/opentelemetry-collector-contrib:0.128.0" }
    runbook_url     = "https://git.acme.example/hookyard/docs/RUNBOOK.md"
  }
  assert {
    condition     = length(google_monitoring_alert_policy.durable) == 5 && alltrue([for key, it in google_monitoring_alert_policy.durable : strcontains(it.documentation[0].content, "RUNBOOK.md#${key}")])
    error_message = "each with its section of the runbook"
  }
}

run "without_the_sidecar_the_log_tells_what_it_can" {
  variables {
    database = { enabled = true }
  }
  assert {
    condition     = length(google_monitoring_alert_policy.durable) == 0 && length(setintersection(keys(google_monitoring_alert_policy.threshold), ["the-database-does-not-answer", "failed-events-are-open"])) == 2
    error_message = "database and failures are told"
  }
  expect_failures = [check.durable_mode_is_measured]
}

run "the_sidecar_brings_the_alert_on_age" {
  variables {
    metrics_sidecar = { image = "otel/opentelemetry-collector-contrib:0.128.0" }
  }
  assert {
    condition     = length(google_cloud_run_v2_service.this.template[0].containers) == 2 && length(google_monitoring_alert_policy.event_age) == 1
    error_message = "collector and alert go together"
  }
}

run "the_bridge_publishes_to_one_topic_and_checks_its_own_secret" {
  variables {
    bridge = { trigger = "contract-events", key_columns = { orders = ["region", "number"] } }
  }
  assert {
    condition     = google_pubsub_topic_iam_member.bridge_publishes["this"].topic == "contract-events" && google_pubsub_topic_iam_member.bridge_publishes["this"].member == "serviceAccount:hookyard-bridge@acme-events-test.iam.gserviceaccount.com"
    error_message = "the bridge may publish where it has to"
  }
  assert {
    condition     = contains([for it in google_cloud_run_v2_service.bridge["this"].template[0].containers[0].env : it.name if length(it.value_source) == 1], "BRIDGE_SECRET")
    error_message = "its secret comes from Secret Manager"
  }
  assert {
    condition     = contains([for it in google_cloud_run_v2_service.bridge["this"].template[0].containers[0].env : it.value if it.name == "BRIDGE_KEY_COLUMNS"], "orders=region+number")
    error_message = "key columns are spelled as the bridge reads them"
  }
  assert {
    condition     = contains(keys(google_monitoring_alert_policy.threshold), "bridge-fails")
    error_message = "somebody is told when it fails"
  }
}

run "a_reachable_service_is_checked_from_outside" {
  variables {
    ingress        = "INGRESS_TRAFFIC_ALL"
    push_auth_mode = "platform"
  }
  assert {
    condition     = google_monitoring_uptime_check_config.health[0].http_check[0].service_agent_authentication[0].type == "OIDC_TOKEN" && length(google_cloud_run_v2_service_iam_member.uptime_check) == 1
    error_message = "behind the invoker check the checker needs a token and the right to call"
  }
}

run "every_alert_says_what_to_do" {
  variables {
    runbook_url = "https://git.acme.example/hookyard/docs/RUNBOOK.md"
  }
  assert {
    condition     = alltrue([for key, it in google_monitoring_alert_policy.threshold : strcontains(it.documentation[0].content, "RUNBOOK.md#${key}")])
    error_message = "an alert has no section of the runbook"
  }
}
