"""What an API returned, as the body of an answer: JSON, text, a file, or tensors where the caller takes them."""

from __future__ import annotations

from typing import Any

import msgspec

from bentotool.sdk.codecs import Codec, load_foreign, to_plain
from bentotool.sdk.exceptions import InvalidOutput
from bentotool.sdk.files import Rendered
from bentotool.sdk.places import locate
from bentotool.sdk.wording import kind_of

__all__ = ["WRONG", "checked", "encode_answer", "objection", "render_answer"]

_ENCODER = msgspec.json.Encoder(enc_hook=to_plain)
WRONG = (msgspec.ValidationError, TypeError, ValueError, OverflowError)


def objection(name: str, error: Exception) -> InvalidOutput:
    what, path = locate(str(error))
    return InvalidOutput(f"{name} returned something it does not declare at {path}: {what}")


def checked(codec: Codec, value: Any) -> Any:
    """A value of a type without a codec of its own, if it is of the declared type."""
    if codec.wire is Any:
        return value
    try:
        return msgspec.convert(value, codec.wire, dec_hook=load_foreign, from_attributes=codec.foreign)
    except msgspec.ValidationError:
        # numpy scalars and models inside containers are right once they are plain
        plain = msgspec.to_builtins(value, enc_hook=to_plain)
        return msgspec.convert(plain, codec.wire, dec_hook=load_foreign)


def encode_answer(name: str, codec: Codec, value: Any) -> bytes:
    """A body of JSON or text.

    Raises:
        InvalidOutput: the value is not of the declared type.
    """
    try:
        value = codec.dump(value) if codec.dump is not None else checked(codec, value)
        if isinstance(value, str) and codec.media_type.startswith("text/"):
            return value.encode()
        if isinstance(value, bytes) and codec.media_type != "application/json":
            return value
        return _ENCODER.encode(value)
    except WRONG as error:
        raise objection(name, error) from error


def render_answer(name: str, codec: Codec, value: Any) -> Rendered:
    """The answer of an API whose values may be files.

    Raises:
        InvalidOutput: the value is not of the declared type.
    """
    try:
        made = codec.render(value) if codec.render is not None else None
    except WRONG as error:
        raise objection(name, error) from error
    except OSError as error:
        raise InvalidOutput(f"{name} returned a file that cannot be written: {error}") from error
    if made is not None:
        return made
    if value is not None and codec.load is not None:
        raise InvalidOutput(f"{name} returned {kind_of(value)}, which it does not declare")
    union = Codec(codec.wire, codec.describe)
    return Rendered([encode_answer(name, union, value)], "application/json")
