# Remote state in the bucket that bootstrap/ made:
#   terraform init -backend-config="bucket=$(terraform -chdir=bootstrap output -raw state_bucket)"
# To look at a plan without it: terraform init -backend=false
terraform {
  backend "gcs" {
    prefix = "hookyard/service"
  }
}
