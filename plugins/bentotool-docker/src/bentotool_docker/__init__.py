"""Docker for bentotool: a deployment target."""
