mock_provider "google" {
  mock_data "google_project" {
    defaults = {
      number = "123456789012"
    }
  }
}

variables {
  project_id = "acme-events-test"
}

run "the_deployer_owns_nothing" {
  assert {
    condition     = length(setintersection(keys(google_project_iam_member.deployer), ["roles/owner", "roles/editor", "roles/iam.serviceAccountUser", "roles/resourcemanager.projectIamAdmin", "roles/secretmanager.secretAccessor", "roles/iam.serviceAccountAdmin"])) == 0
    error_message = "the deployer could make itself more than a deployer, or read secrets"
  }
}

run "the_runtime_reads_its_secrets_and_no_more" {
  assert {
    condition     = keys(google_secret_manager_secret_iam_member.runtime) == ["admin-token", "chargebee-api-key", "hasura-admin-secret"] && keys(google_project_iam_member.runtime) == ["roles/cloudtrace.agent", "roles/monitoring.metricWriter"]
    error_message = "the runtime's rights are not the expected ones"
  }
}

run "the_runtime_reads_the_token_of_those_who_look" {
  variables {
    admin_read_token = true
  }
  assert {
    condition     = contains(keys(google_secret_manager_secret_iam_member.runtime), "admin-read-token") && contains(output.secrets, "hookyard-admin-read-token")
    error_message = "the secret is not there, or not the runtime's to read"
  }
}

run "without_a_repository_there_is_no_trigger" {
  assert {
    condition     = length(google_cloudbuild_trigger.deploy) == 0 && length(google_cloudbuild_trigger.pull_request) == 0
    error_message = "a trigger without a repository"
  }
}

run "a_pull_request_never_runs_as_the_deployer" {
  variables {
    repository = "projects/acme-events-test/locations/europe-west1/connections/github/repositories/hookyard"
  }
  assert {
    condition     = google_cloudbuild_trigger.pull_request[0].service_account == google_service_account.tester[0].id && google_cloudbuild_trigger.deploy[0].service_account == google_service_account.deployer.id
    error_message = "the code of a pull request could deploy"
  }
}

run "an_unanchored_branch_is_refused" {
  command = plan

  variables {
    deploy_branch = "main"
  }
  expect_failures = [var.deploy_branch]
}
