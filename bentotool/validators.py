"""Public name of `bentotool.sdk.validators`, as ``from bentotool.validators import ...``."""

from bentotool.sdk.validators import *  # noqa: F403 - the names are those in the module's __all__
