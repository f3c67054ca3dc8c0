"""Bentos on Cloud Run."""
