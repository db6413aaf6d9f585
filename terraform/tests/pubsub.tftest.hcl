mock_provider "google" {
  source = "./tests/mocks"
}

variables {
  project_id         = "acme-events-test"
  image              = "europe-west1-docker.pkg.dev/acme-events-test/hookyard/hookyard@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  hasura_graphql_url = "https://hasura.acme.example/v1/graphql"
  chargebee_url      = "https://acme.chargebee.com"
}

run "one_apply_makes_several_triggers" {
  variables {
    triggers = {
      contract-events = { publishers = ["serviceAccount:bridge@acme-events-test.iam.gserviceaccount.com"] }
      customer-events = { ordered = true, filter = "attributes.table = \"customers\"" }
      shared          = { topic = "projects/other-project/topics/shared" }
    }
  }
  assert {
    condition     = length(google_pubsub_subscription.push) == 3 && length(google_pubsub_topic.trigger) == 2
    error_message = "a topic that exists is not made again"
  }
  assert {
    condition     = google_pubsub_subscription.push["shared"].topic == "projects/other-project/topics/shared"
    error_message = "it is subscribed to"
  }
  assert {
    condition     = google_pubsub_subscription.push["customer-events"].enable_message_ordering == true && google_pubsub_subscription.push["contract-events"].enable_message_ordering == false
    error_message = "order on request only"
  }
  assert {
    condition     = length(google_pubsub_topic_iam_member.trigger_publisher) == 1 && length(google_pubsub_subscription_iam_member.pubsub_acknowledges) == 3
    error_message = "rights follow the map"
  }
}

run "a_push_carries_a_token_and_never_expires" {
  assert {
    condition     = google_pubsub_subscription.push["contract-events"].push_config[0].oidc_token[0].service_account_email == local.environment["PUSH_SERVICE_ACCOUNT"] && google_pubsub_subscription.push["contract-events"].push_config[0].oidc_token[0].audience == local.environment["PUSH_AUDIENCE"]
    error_message = "the service expects what Pub/Sub sends"
  }
  assert {
    condition     = google_pubsub_subscription.push["contract-events"].push_config[0].push_endpoint == "https://hookyard-abc123-ew.a.run.app/push"
    error_message = "it goes to /push"
  }
  assert {
    condition     = alltrue([for it in concat(values(google_pubsub_subscription.push), [google_pubsub_subscription.dead_letters, google_pubsub_subscription.smoke]) : it.expiration_policy[0].ttl == ""])
    error_message = "a quiet month must not delete a subscription"
  }
}

run "dead_letters_are_kept_and_pubsub_may_move_them" {
  assert {
    condition     = google_pubsub_subscription.dead_letters.topic == google_pubsub_topic.dead_letters.id && length(google_pubsub_subscription.dead_letters.push_config) == 0
    error_message = "the dead-letter topic has a pull subscription"
  }
  assert {
    condition     = google_pubsub_topic_iam_member.pubsub_publishes_dead_letters.member == "serviceAccount:service-123456789012@gcp-sa-pubsub.iam.gserviceaccount.com" && google_pubsub_topic_iam_member.pubsub_publishes_dead_letters.role == "roles/pubsub.publisher"
    error_message = "the service agent may publish there"
  }
  assert {
    condition     = google_pubsub_subscription_iam_member.pubsub_acknowledges["contract-events"].role == "roles/pubsub.subscriber" && google_pubsub_subscription_iam_member.pubsub_acknowledges["contract-events"].subscription == "contract-events-hookyard"
    error_message = "and acknowledge at the source"
  }
  assert {
    condition     = google_pubsub_subscription.push["contract-events"].dead_letter_policy[0].max_delivery_attempts == 100
    error_message = "passing trouble has hours to pass"
  }
}
