"""Statistics of categories: hash tables that CatBoost looks rows up in.

Source: catboost/libs/model/ctr_value_table.h and dense_hash_view.h of CatBoost. A bucket is a hash of eight bytes and
the number of a value in four; a bucket whose hash is all ones is empty, and looking up goes on until it meets one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bentotool_catboost.flatbuffer import FormatError, Table, numbers

_BUCKET_WORDS = 3
_EMPTY = 0xFFFFFFFF
_BORDERS, _BUCKETS, _MEANS, _FLOAT_MEANS, _COUNTER, _FREQUENCY = range(6)
_MAX_CLASSES = 1 << 20


def read_statistics(table: Table) -> tuple[bytes, int]:
    """Check one table; gives what it is of, and the number of values for each category."""
    base = table.table(0)
    if base is None:
        raise FormatError("a table of categories is of no feature")
    kind = base.integer(1, 0, "b")
    words = numbers(table.content(1), "I")
    blob = table.count(2, 1)
    classes = table.integer(4, 0)
    if kind in (_BORDERS, _BUCKETS):
        # CatBoost takes what states fewer than three classes as having two
        width = classes if classes > 2 or kind == _BUCKETS else 2
    elif kind in (_MEANS, _FLOAT_MEANS):
        width = 2
    elif kind in (_COUNTER, _FREQUENCY):
        width = 1
    else:
        raise FormatError(f"a table of categories is of the unknown kind {kind}")
    if not 0 < width <= _MAX_CLASSES or blob % (4 * width):
        raise FormatError(f"a table of categories has {blob} bytes for values of {width} numbers")
    _check_buckets(words, blob // (4 * width))
    return _key(base), width


def _check_buckets(words: Sequence[int], values: int) -> None:
    count = len(words) // _BUCKET_WORDS
    if not count or len(words) % _BUCKET_WORDS or count & (count - 1):
        raise FormatError(f"a table of categories has {len(words) / _BUCKET_WORDS:g} buckets, not a power of two")
    low, high, numbers = words[0::3], words[1::3], words[2::3]
    used = _EMPTY
    full = True
    for first, second, number in zip(low, high, numbers, strict=True):
        if first == second == _EMPTY:
            full = False
        elif number >= values and number != used:
            raise FormatError(f"a table of categories leads to value {number} of {values}")
    if full:
        raise FormatError("a table of categories has no empty bucket, so that looking one up would not end")


def _key(base: Table) -> bytes:
    """The kind, and the features that are combined, as bytes that are equal where CatBoost takes them for the same."""
    combination = base.table(0)
    parts = [base.integer(1, 0, "b").to_bytes(1, "little", signed=True)]
    if combination is not None:
        for field, size in ((0, 4), (1, 8), (2, 8)):
            content = combination.content(field, size)
            parts += [len(content).to_bytes(8, "little"), content]
    return b"".join(parts)


def check_statistics(features: Sequence[Table], tables: Mapping[bytes, int]) -> None:
    """Each feature made of categories has its table, and a border within the table's classes."""
    for feature in features:
        ctr = feature.table(0)
        base = ctr.table(0) if ctr is not None else None
        if ctr is None or base is None:
            raise FormatError("a feature made of categories names none")
        width = tables.get(_key(base))
        if width is None:
            raise FormatError("the table of a feature made of categories is missing")
        kind = base.integer(1, 0, "b")
        if kind in (_BORDERS, _BUCKETS) and not 0 <= ctr.integer(1, 0) < width:
            raise FormatError(f"a feature made of categories asks for class {ctr.integer(1, 0)} of {width}")
