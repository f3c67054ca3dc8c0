"""Whether an exported program asks for more than operators of torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from .records import InvalidModelError, first_line

MAX_CONTAINERS = 5_000_000  # objects and lists in a JSON document
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prim|prims|higher_order|quantized|quantized_decomposed)\.\w+(\.\w+)?"
    r"|torch\.(_?sym_\w+|_check\w*)|torch\._C\._set_grad_enabled|_operator\.(?!call|methodcaller|attrgetter|itemgetter)\w+|math\.\w+"
)
# sympy evaluates an expression as Python, with all of sympy in reach: symbols, numbers and these functions only, no
# attribute, and no power of more than one digit
_SYMBOL = re.compile(r"Symbol\('\w+'(, \w+=(True|False))*\)")
_EXPRESSION = re.compile(r"(?!.*\.\s*[A-Za-z_])(?!.*\*\*(?!\s*\d(?!\d|\s*\*\*)))[\w +\-*/%(),.<>=!&|~]{0,4096}")
_NAME = re.compile(r"[A-Za-z_]\w*")
_PLAIN_SYMBOL = re.compile(r"[a-z]{1,4}_?\d+|True|False|(int_)?oo")
_SPEC_TYPES = frozenset({None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"})
_FUNCTIONS = frozenset(
    {
        *("Max", "Min", "Mod", "PythonMod", "FloorDiv", "CleanDiv", "CeilDiv", "IntTrueDiv", "FloatTrueDiv", "Eq"),
        *("Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "Abs", "floor", "ceiling", "Pow", "PowByNatural", "sqrt"),
        *("FloatPow", "ToFloat", "TruncToInt", "TruncToFloat", "FloorToInt", "CeilToInt", "RoundToInt", "Where"),
        *("Piecewise", "Identity", "ModularIndexing", "Integer", "LShift", "RShift", "RoundDecimal"),
    }
)


def read_json(text: bytes, name: str) -> Any:
    """A document of an archive; InvalidModelError where it is none or too large."""
    if text.count(b"[") + text.count(b"{") > MAX_CONTAINERS:
        raise InvalidModelError(f"{name} has more than {MAX_CONTAINERS} objects and lists")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidModelError(f"{name} is not JSON: {first_line(error)}") from None


def pickled_payloads(document: Any, name: str) -> Iterator[str]:
    """Which weights or constants a table keeps as pickles."""
    for table in _tables(document):
        if table.get("use_pickle"):
            yield f"{name} keeps {str(table.get('path_name'))!r:.80} as a pickle"


def program_reasons(document: Any) -> Iterator[str]:
    """Operators are looked up in torch by a dotted name, and expressions are evaluated."""
    for table in _tables(document):
        target = table.get("target")
        if isinstance(target, str) and "inputs" in table and not _OPERATOR.fullmatch(target):
            yield f"it calls {target:.80}"
        for key, value in table.items():
            if key == "expr_str" and not _is_arithmetic(str(value)):
                yield f"it evaluates {str(value)!r:.80}"
            elif key in ("in_spec", "out_spec") and isinstance(value, str):
                yield from (f"it imports {name:.80}" for name in _foreign_types(value))


def _is_arithmetic(text: str) -> bool:
    text = _SYMBOL.sub("s0", text)
    names = _NAME.findall(text)
    return _EXPRESSION.fullmatch(text) is not None and all(
        name in _FUNCTIONS or _PLAIN_SYMBOL.fullmatch(name) for name in names
    )


def _foreign_types(spec: str) -> list[str]:
    """Types, other than plain containers, that a description of nested arguments names."""
    try:
        document = json.loads(spec)
    except (ValueError, RecursionError) as error:
        raise InvalidModelError(f"a description of arguments is not JSON: {first_line(error)}") from None
    types = [table.get("type") for table in _tables(document)]
    return sorted(str(name) for name in types if not isinstance(name, str | None) or name not in _SPEC_TYPES)


def _tables(document: Any) -> Iterator[dict[str, Any]]:
    level = [document]
    while level:
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                yield item
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        level = inner
