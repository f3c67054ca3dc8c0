"""Pickled Python objects for bentotool."""

__version__ = "0.1.0"
