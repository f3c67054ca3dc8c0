"""Models of a BentoML model store, for bentotool."""

__version__ = "0.1.0"
