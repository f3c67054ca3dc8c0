"""Deploying: options of a target, a plan, applying it, and what is kept of that."""
