"""Public name of `bentotool.sdk.images`, as ``from bentotool.images import Image``."""

from bentotool.sdk.images import *  # noqa: F403 - the names are those in the module's __all__
