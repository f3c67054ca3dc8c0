"""MLflow models for bentotool."""

__version__ = "0.1.0"
