"""YAML that is written for other readers: what is a string here is one to all of them."""

from __future__ import annotations

import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bentotool.yamltext import as_yaml

# What readers take for something else than a string. Sources: the type repository of YAML 1.1; the core schema of
# YAML 1.2; resolve.go of go-yaml, whose numbers are those of strconv.ParseInt with base 0 and underscores.
READERS = {
    "1.1 bool": r"(?i:y|yes|n|no|true|false|on|off)",
    "1.1 null": r"~|(?i:null)|",
    "1.1 int": r"[-+]?(0b[01_]+|0[0-7_]+|(0|[1-9][0-9_]*)|0x[0-9a-fA-F_]+|[1-9][0-9_]*(:[0-5]?[0-9])+)",
    "1.1 float": r"[-+]?([0-9][0-9_]*)?\.[0-9._]*([eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+\.[0-9_]*",
    "1.1 special": r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)|<<|=",
    "1.1 time": r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt \t].*)?",
    "1.2 int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "1.2 float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|(?i:[-+]?\.inf|\.nan)",
    "go int": r"[-+]?(0[bB][01_]+|0[oO]?[0-7_]+|0[xX][0-9a-fA-F_]+|[0-9][0-9_]*)",
    "go float": r"(?i:[-+]?(inf|infinity|nan)|[-+]?0x[0-9a-f_.]+p[-+]?[0-9]+)",
}
KNOWN = """
1e5 1E5 4e10 083912345678 09 0o17 0O17 1_000 1:30 190:20:30 y Y n on Off yes .5 5. -.5 +1 0x1F -0x1f 0b11 ~
null Null NULL true TRUE 2024-01-02 2024-01-02T03:04:05Z .inf -.INF .nan inf -inf NaN = << 1e-3
12345678901234567890 - 0
""".split()  # noqa: SIM905
PLAIN = ["iris", "app.kubernetes.io/name", "/livez", "--service", "500m", "1Gi", "sha256:00", "v1", "e5", "yes-sir"]


def scalars(text: str) -> list[yaml.ScalarNode]:
    """The value, the key and the item of the document below."""
    root = yaml.compose(text, Loader=yaml.BaseLoader)
    (value, item) = root.value[1][1], root.value[2][1].value[0]
    return [value, root.value[0][0], item]


def quoted(text: str) -> bool:
    """Whether a string stands in quotes wherever it stands, and is the same when it is read."""
    written = as_yaml([{text: 1, "value of its own": text, "items of its own": [text]}])
    assert yaml.safe_load(written) == {text: 1, "value of its own": text, "items of its own": [text]}
    return all(node.style in ("'", '"', "|", ">") for node in scalars(written))


def ambiguous(text: str) -> bool:
    return any(re.fullmatch(pattern, text) for pattern in READERS.values())


@pytest.mark.parametrize("text", ["", *KNOWN])
def test_what_some_reader_takes_for_another_thing_stands_in_quotes(text: str) -> None:
    assert quoted(text)


@pytest.mark.parametrize("text", PLAIN)
def test_other_text_stands_as_it_is(text: str) -> None:
    assert not ambiguous(text)
    assert not quoted(text)


@settings(deadline=None)
@given(st.one_of(*(st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True) for pattern in READERS.values())))
def test_nothing_that_a_reader_knows_goes_without_quotes(text: str) -> None:
    assert quoted(text)


@settings(deadline=None)
@given(st.text(alphabet="0123456789abefinoxyABEFINOXY.:_+-~ \n'\"#", max_size=12))
def test_any_text_is_the_same_when_it_is_read(text: str) -> None:
    assert quoted(text) or not ambiguous(text)
