terraform {
  required_version = ">= 1.9, < 2.0"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 7.0, < 9.0"
    }
  }

  # Starts with local state, because the bucket for it is made here. Afterwards it moves in:
  #   cp backend.tf.example backend.tf
  #   terraform init -migrate-state -backend-config="bucket=$(terraform output -raw state_bucket)"
}

provider "google" {
  project = var.project_id
  region  = var.region
}
