"""``bentotool schema``: JSON schemas of the files that people write, for editors and CI."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from bentotool.cli.state import current

_NAMES = ("bentofile", "policy")


def schema(
    name: Annotated[
        str, typer.Argument(metavar="bentofile|policy", help="bentofile.yaml and [tool.bentotool], or policy.yaml.")
    ],
) -> None:
    """Print the JSON schema of a configuration file"""
    from bentotool.errors import UsageError

    if name not in _NAMES:
        raise UsageError(f"there is no schema {name!r}", hint=f"one of {', '.join(_NAMES)}")
    if name == "policy":
        from bentotool.trust.policyschema import policy_schema as described
    else:
        from bentotool.build.reference import json_schema as described
    document = described()
    current().console.result(document, json.dumps(document, indent=2))
