"""bentotool: from a model file to a running, scaled, trusted service."""

__version__ = "0.1.0"
