"""HTTP clients of bentotool (and BentoML) services."""
