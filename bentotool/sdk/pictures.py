"""PIL images on the wire. Imported only when a service's annotation comes from PIL."""

from __future__ import annotations

import io
import types
import warnings
from typing import Any

import PIL.Image

from bentotool.sdk.codecs import Codec
from bentotool.sdk.files import Rendered, Upload, check_content_type, data_url, describe_file, read_data_url
from bentotool.sdk.validators import ContentType
from bentotool.sdk.wording import kind_of

__all__ = ["make", "plain"]

_READ = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "TGA", "ICO", "JPEG2000", "AVIF", "MPO")
"""Formats that are read: those whose readers start no other program, which EPS's does."""
_MAX_PIXELS = 178_956_970
"""Twice what PIL warns of: 16k by 11k."""
_NO_ALPHA = ("JPEG", "BMP", "PPM")


def _open(upload: Upload) -> PIL.Image.Image:
    source: Any = upload.stored if upload.data is None and upload.stored else io.BytesIO(upload.read())
    PIL.Image.init()
    known = [name for name in _READ if name in PIL.Image.OPEN]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images: the limit below is what counts here
            image = PIL.Image.open(source, formats=known)
            if image.width * image.height > _MAX_PIXELS:
                raise ValueError(f"the image has {image.width} x {image.height} pixels, more than are taken")
            image.load()
    except (OSError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise ValueError(f"expected an image: {type(error).__name__}") from None
    return image


def _encoded(image: PIL.Image.Image, media: str | None) -> tuple[bytes, str]:
    """The bytes of an image and their type: as declared, else as it was read, else PNG."""
    PIL.Image.init()
    wanted = next((name for name, mime in PIL.Image.MIME.items() if mime == media and name in PIL.Image.SAVE), None)
    name = wanted or (image.format if image.format in PIL.Image.SAVE and image.format in _READ else None) or "PNG"
    if name in _NO_ALPHA and image.mode not in ("RGB", "L", "1", "CMYK"):
        image = image.convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, format=name)
    return buffer.getvalue(), PIL.Image.MIME.get(name, f"image/{name.lower()}")


def plain(value: Any) -> Any:
    """An image inside an answer, as a ``data:`` URL."""
    if isinstance(value, PIL.Image.Image):
        return data_url(*_encoded(value, None))
    raise TypeError(f"{kind_of(value)} cannot be sent as JSON")


def make(tp: Any, metadata: tuple[Any, ...]) -> Codec | None:
    """The codec of ``PIL.Image.Image``."""
    if isinstance(tp, types.ModuleType):
        raise TypeError("PIL.Image is a module: the type is PIL.Image.Image")
    if not (isinstance(tp, type) and issubclass(tp, PIL.Image.Image)):
        return None
    declared = next((item.content_type for item in metadata if isinstance(item, ContentType)), None)
    concrete = declared if declared and "*" not in declared else None

    def load(value: Any) -> PIL.Image.Image:
        if isinstance(value, PIL.Image.Image):
            return value
        if isinstance(value, str):
            value = read_data_url(value)
        if not isinstance(value, Upload):
            raise ValueError("expected an image: send it as multipart/form-data")
        check_content_type(value.content_type, declared)
        return _open(value)

    def render(value: Any) -> Rendered | None:
        if not isinstance(value, PIL.Image.Image):
            return None
        data, media = _encoded(value, concrete)
        return Rendered([data], media)

    return Codec(
        Any,
        describe_file("image", declared, {"pil": True}),
        load=load,
        dump=plain,
        render=render,
        media_type=concrete or "image/png",
        file=True,
        files=True,
        foreign=True,
    )
