"""The serving side: supervisor, workers, batcher, HTTP application. Started as ``python -m bentotool.runtime``."""
