"""Container images of Bentos: one plan, and the builder that needs neither a daemon nor root.

In a Bento's own runtime nothing but this file is there, for services that declare their `Image`.
"""

from bentotool.sdk.images import Image, PythonImage

__all__ = ["Image", "PythonImage"]
