"""Public name of `bentotool.sdk.exceptions`, as ``from bentotool.exceptions import ...``."""

from bentotool.sdk.exceptions import *  # noqa: F403 - the names are those in the module's __all__
