"""Keyless signatures for bentotool, through Sigstore: made, and verified."""
