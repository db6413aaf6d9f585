mock_provider "google" {
  source = "./tests/mocks"
}

variables {
  project_id         = "acme-events-test"
  image              = "europe-west1-docker.pkg.dev/acme-events-test/hookyard/hookyard@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  hasura_graphql_url = "https://hasura.acme.example/v1/graphql"
  chargebee_url      = "https://acme.chargebee.com"
}

run "an_image_by_tag_is_refused" {
  command = plan

  variables {
    image = "europe-west1-docker.pkg.dev/p/r/hookyard:latest"
  }
  expect_failures = [var.image]
}

run "an_unknown_auth_mode_is_refused" {
  command = plan

  variables {
    push_auth_mode = "none"
  }
  expect_failures = [var.push_auth_mode]
}

run "an_audience_with_a_comma_is_refused" {
  command = plan

  variables {
    push_audience = "one,two"
  }
  expect_failures = [var.push_audience]
}

run "plain_http_to_hasura_is_refused" {
  command = plan

  variables {
    hasura_graphql_url = "http://hasura.acme.example/v1/graphql"
  }
  expect_failures = [var.hasura_graphql_url]
}

run "a_password_in_a_url_is_refused" {
  command = plan

  variables {
    chargebee_url = "https://key:@acme.chargebee.com"
  }
  expect_failures = [var.chargebee_url]
}

run "a_secret_in_the_environment_is_refused" {
  command = plan

  variables {
    environment = { STRIPE_API_KEY = "sk" }
  }
  expect_failures = [var.environment]
}

run "another_token_issuer_is_refused" {
  command = plan

  variables {
    environment = { OIDC_JWKS_URL = "https://attacker.example/keys" }
  }
  expect_failures = [var.environment]
}

run "an_emulator_in_production_is_refused" {
  command = plan

  variables {
    environment = { PUBSUB_EMULATOR_HOST = "localhost:8085" }
  }
  expect_failures = [var.environment]
}

run "a_handler_longer_than_the_deadline_is_refused" {
  command = plan

  variables {
    handler_timeout_seconds = 60
  }
  expect_failures = [var.handler_timeout_seconds]
}

run "a_deadline_pubsub_does_not_know_is_refused" {
  command = plan

  variables {
    ack_deadline_seconds = 601
  }
  expect_failures = [var.ack_deadline_seconds]
}

run "too_few_delivery_attempts_is_refused" {
  command = plan

  variables {
    retry = { max_delivery_attempts = 4 }
  }
  expect_failures = [var.retry]
}

run "a_public_publisher_is_refused" {
  command = plan

  variables {
    triggers = { contract-events = { publishers = ["allUsers"] } }
  }
  expect_failures = [var.triggers]
}

run "a_trigger_named_like_our_own_topic_is_refused" {
  command = plan

  variables {
    triggers = { hookyard-dead-letters = {} }
  }
  expect_failures = [var.triggers]
}

run "no_trigger_at_all_is_refused" {
  command = plan

  variables {
    triggers = {}
  }
  expect_failures = [var.triggers]
}

run "a_public_reader_of_dead_letters_is_refused" {
  command = plan

  variables {
    dead_letter_readers = ["allAuthenticatedUsers"]
  }
  expect_failures = [var.dead_letter_readers]
}

run "more_least_than_most_instances_is_refused" {
  command = plan

  variables {
    max_instances = 0
  }
  expect_failures = [var.max_instances]
}

run "a_sidecar_without_cpu_is_refused" {
  command = plan

  variables {
    cpu_always_allocated = false
    metrics_sidecar      = { image = "otel/opentelemetry-collector-contrib:0.128.0" }
  }
  expect_failures = [var.cpu_always_allocated]
}

run "a_retention_pubsub_does_not_know_is_refused" {
  command = plan

  variables {
    retention_days = { dead_letters = 32 }
  }
  expect_failures = [var.retention_days]
}

run "a_ratio_above_one_is_refused" {
  command = plan

  variables {
    alert_thresholds = { push_error_ratio = 5 }
  }
  expect_failures = [var.alert_thresholds]
}

run "a_secret_nobody_reads_is_refused" {
  command = plan

  variables {
    secret_versions = { stripe = "1" }
  }
  expect_failures = [var.secret_versions]
}

run "a_channel_by_its_title_is_refused" {
  command = plan

  variables {
    notification_channels = ["on-call"]
  }
  expect_failures = [var.notification_channels]
}

run "a_bridge_to_nowhere_is_refused" {
  command = plan

  variables {
    bridge = { trigger = "orders" }
  }
  expect_failures = [var.bridge]
}

run "a_database_without_an_instance_is_refused" {
  command = plan

  variables {
    database      = { enabled = true }
    min_instances = 0
  }
  expect_failures = [var.min_instances]
}

run "more_connections_than_the_database_takes_is_refused" {
  command = plan

  variables {
    database      = { enabled = true }
    max_instances = 20
  }
  expect_failures = [var.max_instances]
}

run "a_tier_that_is_no_postgres_tier_is_refused" {
  command = plan

  variables {
    database = { enabled = true, tier = "db-n1-standard-1" }
  }
  expect_failures = [var.database]
}

run "dead_letters_nowhere_is_refused" {
  command = plan

  variables {
    publish_dead_letters = false
  }
  expect_failures = [var.publish_dead_letters]
}

run "retries_by_nobody_is_refused" {
  command = plan

  variables {
    database = { enabled = true, retry_owner = "self" }
  }
  expect_failures = [var.database]
}
