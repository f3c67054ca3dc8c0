"""Tasks of bentotool services in Redis."""
