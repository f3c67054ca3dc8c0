"""Amazon SageMaker for bentotool: a deployment target, and the login to Amazon ECR."""
