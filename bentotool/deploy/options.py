"""What a user says to a target: pairs of text on the command line, values of its options here."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bentotool.errors import UsageError
from bentotool.oci.names import check_name
from bentotool.targetoptions import DEPENDS_VARIABLE, depends_addresses
from bentotool.targetspec import OptionSpec, TargetDecl

__all__ = ["MAX_NAME", "check_deployment_name", "check_services", "environment", "option_values", "usual_name"]

MAX_NAME = 50
"""Characters of a deployment's name: targets make longer ones of it, and most systems end at 63."""

_NAME = re.compile(r"[a-z](?:[a-z0-9-]*[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_RUNTIMES_OWN = ("BENTOTOOL_DOOR", "BENTOTOOL_WORKER_INDEX", "BENTOTOOL_WORKER_SLOT")
"""Variables by which the processes of a server know each other."""


def check_deployment_name(name: str) -> str:
    """A name that every target can take: lower-case letters, digits and dashes, a letter first.

    Raises:
        UsageError: it is none.
    """
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise UsageError(
            f"{name[:80]!r} is no name for a deployment",
            hint=f"lower-case letters, digits and dashes, a letter first, {MAX_NAME} characters at most: --name NAME",
        )
    return check_name(name)


def usual_name(bento: str) -> str:
    """The name of a deployment where none is given: that of the Bento, as far as it can be one."""
    name = re.sub(r"[^a-z0-9]+", "-", bento.lower()).strip("-")[:MAX_NAME].rstrip("-")
    return check_deployment_name(name if name[:1].isalpha() else f"b-{name}"[:MAX_NAME].rstrip("-"))


def option_values(decl: TargetDecl, pairs: Sequence[str]) -> dict[str, Any]:
    """The values of a target's options, each with its default where nothing is said.

    Args:
        decl: the target.
        pairs: ``NAME=VALUE``, or ``SERVICE.NAME=VALUE`` for one Service of a graph; a flag may go without ``=true``.

    Returns:
        Values by name; those of one Service under ``SERVICE.NAME``.

    Raises:
        UsageError: an option that the target has not, that is given twice, or a value that it does not take.
    """
    known = {option.name: option for option in decl.options}
    given: dict[str, list[Any]] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        service, dot, last = name.strip().rpartition(".")
        last = last.replace("_", "-")
        option, name = known.get(last), f"{service}{dot}{last}"
        if option is None:
            raise _unknown(decl, last, known)
        if dot and not option.per_service:
            raise UsageError(
                f"{last} is one for the whole deployment, not for {service[:60]!r}", hint=f"--set {last}=…"
            )
        if not equals and option.kind != "flag":
            raise UsageError(f"--set {pair[:80]!r} is not of the form NAME=VALUE", hint=f"--set {name}=…")
        values = given.setdefault(name, [])
        if values and not option.repeated:
            raise UsageError(f"{name} is given twice", hint="give it once")
        values.append(option.parse(text if equals else "true"))
    own = {name: _value(known[name.rpartition(".")[2]], given[name]) for name in given if "." in name}
    _check_needs(known, {name: _value(known[name.rpartition(".")[2]], values) for name, values in given.items()})
    return {**{name: _value(option, given.get(name)) for name, option in known.items()}, **own}


def _check_needs(known: Mapping[str, OptionSpec], given: Mapping[str, Any]) -> None:
    """Refuse what has no effect without another option.

    Args:
        given: values that were said, also of one Service.
    """
    for name in given:
        service, _, last = name.rpartition(".")
        for need in known[last].needs if given[name] != known[last].default else ():
            needed, _, wanted = need.partition("=")
            # what is said for one Service holds for it alone; what is said for all may be meant for some
            counting = [each for each in given if each.rpartition(".")[2] == needed]
            if service:
                counting = [each for each in counting if each.rpartition(".")[0] in ("", service)]
            values = [given[each] for each in counting] or [known[needed].default]
            if not any(str(value) == wanted if wanted else value not in (None, False, ()) for value in values):
                written = f"--{needed} {wanted}".rstrip()
                raise UsageError(f"--{last} has no effect without {written}", hint=f"give both, or leave --{last} out")


def check_services(values: Mapping[str, Any], services: Sequence[str]) -> None:
    """Refuse settings for Services that the graph has not.

    Args:
        services: names of its Services; none where they are not known.

    Raises:
        UsageError: naming the one that is meant, where one is close.
    """
    for name in values:
        service = name.rpartition(".")[0]
        if service and service not in services:
            close = difflib.get_close_matches(service, services, 1)
            there = f"it has: {', '.join(services)}" if services else "it does not tell its services: build it again"
            raise UsageError(
                f"the Bento has no Service {service[:60]!r}", hint=f"did you mean {close[0]}?" if close else there
            )


def _value(option: OptionSpec, given: list[Any] | None) -> Any:
    if given is None:
        return () if option.repeated and option.default is None else option.default
    return tuple(given) if option.repeated else given[0]


def _unknown(decl: TargetDecl, name: str, known: Mapping[str, OptionSpec]) -> UsageError:
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]}?" if close else f"it has: {', '.join(known) or 'none'}"
    return UsageError(f"target {decl.name} has no option {name[:60]!r}", hint=hint)


def environment(pairs: Sequence[str], decl: TargetDecl | None = None) -> dict[str, str]:
    """Environment variables from ``NAME=VALUE``.

    Args:
        decl: the target that they are for; it may set some itself.

    Raises:
        UsageError: a pair of another form, a name that stands twice, or one that others set.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not _VARIABLE.fullmatch(name) or "\0" in value:
            raise UsageError(f"--env {name[:60]!r} is not of the form NAME=VALUE", hint="--env LOG_LEVEL=info")
        if name in found:
            raise UsageError(f"--env {name} is given twice", hint="give it once")
        _check_variable(name, decl)
        found[name] = value
    depends_addresses(found.get(DEPENDS_VARIABLE, ""))
    return found


def _check_variable(name: str, decl: TargetDecl | None) -> None:
    if name in _RUNTIMES_OWN:
        raise UsageError(f"--env {name} is one that a server sets for its own processes", hint="leave it out")
    if decl is not None and name in decl.variables:
        option = decl.variables[name]
        raise UsageError(
            f"--env {name} is set by the target {decl.name} itself",
            hint=f"--{option} says what is in it" if option else "leave it out",
        )
