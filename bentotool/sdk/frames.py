"""Data frames of pandas and polars on the wire: a list of rows, or an object of columns.

Imported only when a service's annotation comes from one of the two; the other is not imported.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bentotool.sdk.codecs import Batching, Codec, Describe
from bentotool.sdk.tensors import Tensor
from bentotool.sdk.validators import DataframeSchema
from bentotool.sdk.wording import kind_of

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

__all__ = ["make", "plain", "tree_of"]


def _package(tp: Any) -> str:
    return str(getattr(tp, "__module__", "")).partition(".")[0]


def plain(value: Any) -> Any:
    """A frame as rows, a series as a list, a time or a missing value as JSON has it."""
    if _package(type(value)) == "polars":
        if hasattr(value, "to_dicts"):
            return value.to_dicts()
        if hasattr(value, "to_list"):
            return value.to_list()
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        return _rows(value)
    if isinstance(value, (pd.Series, pd.Index)):
        return _column(pd.Series(value))
    if value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, (pd.Timestamp, pd.Timedelta)):
        return value.isoformat()
    raise TypeError(f"{kind_of(value)} cannot be sent as JSON")


def _column(series: pd.Series[Any]) -> list[Any]:
    if series.dtype.kind in "fiub" and not hasattr(series.dtype, "na_value"):
        return list(series.to_numpy().tolist())
    missing = series.isna().tolist()
    return [None if absent else value for value, absent in zip(series.tolist(), missing, strict=True)]


def _columns(frame: pd.DataFrame) -> dict[str, list[Any]]:
    return {str(name): _column(frame.iloc[:, index]) for index, name in enumerate(frame.columns)}


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    columns = _columns(frame)
    names = list(columns)
    if not names:
        return [{} for _ in range(len(frame))]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _without_index(columns: dict[str, dict[str, Any]]) -> dict[str, list[Any]]:
    """Columns as ``DataFrame.to_json()`` writes them: values by index."""
    first = next(iter(columns.values()))
    if any(column.keys() != first.keys() for column in columns.values()):
        raise ValueError("expected columns with the same index")
    return {name: [column[key] for key in first] for name, column in columns.items()}


def _checked_columns(value: dict[str, Any]) -> dict[str, Any]:
    value = {name: item.numpy() if isinstance(item, Tensor) else item for name, item in value.items()}
    if value and all(isinstance(item, dict) for item in value.values()):
        value = _without_index(value)
    if not all(hasattr(item, "__len__") and not isinstance(item, (str, bytes, dict)) for item in value.values()):
        raise ValueError("expected columns, each a list")
    if len({len(item) for item in value.values()}) > 1:
        raise ValueError("expected columns of equal length")
    return value


def _table(value: Any, wanted: tuple[str, ...] | None) -> Any:
    """Rows or columns, checked to be such; columns are arrays where they came as tensors.

    Raises:
        ValueError: neither, or a declared column is not there.
    """
    if isinstance(value, dict):
        value = _checked_columns(value)
        names = set(value)
    elif isinstance(value, list):
        for index, row in enumerate(value):
            if not isinstance(row, dict):
                raise ValueError(f"expected a row as an object - at `$[{index}]`")
        names = set().union(*value) if value else set(wanted or ())
    else:
        raise ValueError("expected a data frame: a list of rows, or an object of columns")
    for name in wanted or ():
        if name not in names:
            raise ValueError(f"column {name!r} is missing")
    return value


def tree_of(value: Any) -> dict[str, Any] | None:
    """A frame as an object of columns: arrays of numbers, or lists; None for what is no frame."""
    if _package(type(value)) == "polars" and hasattr(value, "to_dicts"):
        return {
            name: series.to_numpy() if series.dtype.is_numeric() and not series.null_count() else series.to_list()
            for name, series in value.to_dict().items()
        }
    if _package(type(value)) == "pandas" and hasattr(value, "columns"):
        return {
            str(name): column.to_numpy()
            if column.dtype.kind in "fiub" and not hasattr(column.dtype, "na_value")
            else _column(column)
            for name, column in ((name, value.iloc[:, index]) for index, name in enumerate(value.columns))
        }
    return None


def _describer(schema: DataframeSchema) -> Describe:
    def describe(_template: str, tensors: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        columns = schema.columns or ()
        if tensors:
            named: dict[str, Any] = {"type": "dataframe", "orient": schema.orient}
            if columns:
                named["columns"] = list(columns)
            return named, {}
        by_column: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "array"}}
        row: dict[str, Any] = {"type": "object"}
        if columns:
            by_column |= {"properties": {name: {"type": "array"} for name in columns}, "required": list(columns)}
            row["properties"] = {name: {} for name in columns}
        by_row = {"type": "array", "items": row}
        return {"anyOf": [by_column, by_row] if schema.orient == "columns" else [by_row, by_column]}, {}

    return describe


def _row_split(counts: Sequence[int]) -> list[tuple[int, int]]:
    found, start = [], 0
    for count in counts:
        found.append((start, count))
        start += count
    return found


def _only_rows(dimension: int) -> None:
    if dimension != 0:
        raise TypeError("data frames are batched along dimension 0")


def _pandas(schema: DataframeSchema) -> Codec:
    import pandas as pd

    wanted = schema.columns

    def load(value: Any) -> pd.DataFrame:
        if isinstance(value, pd.DataFrame):
            return value
        return pd.DataFrame(_table(value, wanted), columns=list(wanted) if wanted else None)

    def dump(value: Any) -> Any:
        frame = value if isinstance(value, pd.DataFrame) else load(value)
        for name in wanted or ():
            if name not in frame.columns:
                raise ValueError(f"column {name!r} is missing")
        return _columns(frame) if schema.orient == "columns" else _rows(frame)

    def batching(dimension: int) -> Batching:
        _only_rows(dimension)

        def key(frame: pd.DataFrame) -> object:
            return tuple(zip(map(str, frame.columns), map(str, frame.dtypes), strict=True))

        def merge(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
            return parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)

        def split(merged: Any, counts: Sequence[int]) -> list[Any]:
            return [merged.iloc[start : start + count].reset_index(drop=True) for start, count in _row_split(counts)]

        return Batching(len, key, merge, split)

    return Codec(Any, _describer(schema), load=load, dump=dump, batching=batching, arrays=True, foreign=True)


def _polars(schema: DataframeSchema) -> Codec:
    import polars as pl

    wanted = schema.columns

    def load(value: Any) -> pl.DataFrame:
        if isinstance(value, pl.DataFrame):
            return value
        try:
            frame = pl.DataFrame(_table(value, wanted), strict=False, infer_schema_length=None)
        except pl.exceptions.PolarsError as error:
            raise ValueError(f"expected a data frame: {error}") from None
        return frame.select(wanted) if wanted and frame.columns else frame

    def dump(value: Any) -> Any:
        frame = value if isinstance(value, pl.DataFrame) else load(value)
        for name in wanted or ():
            if name not in frame.columns:
                raise ValueError(f"column {name!r} is missing")
        return frame.to_dict(as_series=False) if schema.orient == "columns" else frame.to_dicts()

    def batching(dimension: int) -> Batching:
        _only_rows(dimension)
        return Batching(
            len,
            lambda frame: tuple((name, str(kind)) for name, kind in frame.schema.items()),
            lambda parts: parts[0] if len(parts) == 1 else pl.concat(parts),
            lambda merged, counts: [merged.slice(start, count) for start, count in _row_split(counts)],
        )

    return Codec(Any, _describer(schema), load=load, dump=dump, batching=batching, arrays=True, foreign=True)


def _series(tp: Any, package: str) -> Codec:
    library = sys.modules[package]

    def load(value: Any) -> Any:
        if isinstance(value, library.Series):
            return value
        if isinstance(value, Tensor):
            value = value.numpy()
        elif not isinstance(value, list):
            raise ValueError("expected a list")
        return tp(value)

    def describe(_template: str, _tensors: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"type": "array", "items": {}}, {}

    return Codec(Any, describe, load=load, dump=plain, foreign=True)


def make(tp: Any, metadata: tuple[Any, ...]) -> Codec | None:
    """The codec of a ``DataFrame`` or a ``Series``."""
    name, package = getattr(tp, "__name__", ""), _package(tp)
    schema = next((item for item in metadata if isinstance(item, DataframeSchema)), DataframeSchema())
    if name == "DataFrame":
        return _pandas(schema) if package == "pandas" else _polars(schema)
    return _series(tp, package) if name == "Series" else None
