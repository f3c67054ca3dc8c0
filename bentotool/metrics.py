"""Public name of `bentotool.sdk.metrics`, as ``from bentotool.metrics import Counter``."""

from bentotool.sdk.metrics import *  # noqa: F403 - the names are those in the module's __all__
