"""Hugging Face models and GGUF files for bentotool."""

__version__ = "0.1.0"
