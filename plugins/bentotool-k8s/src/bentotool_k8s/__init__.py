"""Kubernetes for bentotool: a deployment target."""
