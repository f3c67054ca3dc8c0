"""Annotations that narrow a type: ``Annotated[np.ndarray, Shape((-1, 4)), DType("float32")]``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["ContentType", "DType", "DataframeSchema", "Shape"]


@dataclass(frozen=True, init=False)
class Shape:
    """The dimensions of a tensor.

    Args:
        dimensions: sizes, where -1 or None stands for any size, e.g. ``(-1, 4)``.
    """

    dimensions: tuple[int | None, ...]

    def __init__(self, dimensions: Sequence[int | None]) -> None:
        checked = tuple(None if size in (-1, None) else size for size in dimensions)
        if any(size is not None and (not isinstance(size, int) or size < 0) for size in checked):
            raise TypeError(f"shape {tuple(dimensions)!r}: a dimension is a size, or -1 for any size")
        object.__setattr__(self, "dimensions", checked)


@dataclass(frozen=True)
class DType:
    """The element type of a tensor, by numpy's name: ``float32``, ``int64``."""

    dtype: str


@dataclass(frozen=True)
class ContentType:
    """The media type of a value or of a stream: ``image/png``, ``text/event-stream``."""

    content_type: str


@dataclass(frozen=True, init=False)
class DataframeSchema:
    """The form of a data frame.

    Args:
        orient: how an answer is written: ``records``, a list of rows, or ``columns``, an object of lists. Both are
            read.
        columns: those that have to be there; others are left out.
    """

    orient: str
    columns: tuple[str, ...] | None

    def __init__(self, orient: str = "records", columns: Sequence[str] | None = None) -> None:
        if orient not in ("records", "columns"):
            raise TypeError(f"orient {orient!r}: a data frame is written as records or as columns")
        object.__setattr__(self, "orient", orient)
        object.__setattr__(self, "columns", tuple(columns) if columns else None)
