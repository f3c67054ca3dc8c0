"""``bentotool policy``: what the policies in force say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bentotool.cli.names import bento_names
from bentotool.cli.policies import judge_reference, refuse_unmet, show_judged
from bentotool.cli.registries import asks_registry
from bentotool.cli.state import State, current
from bentotool.errors import UsageError

if TYPE_CHECKING:
    from bentotool.trust.policyfile import PolicyFile

__all__ = ["check_policy", "show_policy"]

_Policy = Annotated[
    Path | None, typer.Option("--policy", metavar="FILE", help="This policy alone, in place of those in force.")
]


@asks_registry
def check_policy(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="REF",
            help="A Bento or model of the store: NAME[:VERSION]; or HOST/REPOSITORY[:TAG], without a pull.",
            autocompletion=bento_names,
        ),
    ],
    policy: _Policy = None,
    model: Annotated[bool, typer.Option("--model", help="REF is a model, where a Bento has that name too.")] = False,
) -> None:
    """Say which rules are about an artifact, and what it lacks"""
    state = current()
    found = judge_reference(state, reference, _policies(policy), model=model)
    if not state.json:
        show_judged(state, found)
    refuse_unmet(state, found, strict=False)
    if state.json:
        state.console.result(found.to_dict(), "")


def show_policy(policy: _Policy = None) -> None:
    """Show the policies in force, and who put them in force"""
    state = current()
    found = _policies(policy, needed=False)
    state.console.result([_document(each) for each in found], lambda: _show(state, found))


def _policies(given: Path | None, *, needed: bool = True) -> tuple[PolicyFile, ...]:
    from bentotool.trust.policyfile import load_policy, policies_in_force

    found = (load_policy(given),) if given is not None else policies_in_force()
    if needed and not found:
        raise UsageError(
            "no policy is in force here", hint="--policy FILE, or set BENTOTOOL_POLICY; docs/trust.md says how"
        )
    return found


def _document(found: PolicyFile) -> dict[str, Any]:
    policy = found.policy
    rules = [
        {
            "name": rule.name or f"rule {place}",
            "repositories": list(rule.repositories),
            "signers": [each.identity or each.identity_regex or each.key or "key_pem" for each in rule.signers],
            "attestations": [each.type for each in rule.attestations],
            "safety": list(rule.safety),
        }
        for place, rule in enumerate(policy.rules, 1)
    ]
    return {
        "path": found.name,
        "origin": found.origin,
        "enforce": policy.enforce,
        "unmatched": policy.unmatched,
        "runtime_check": policy.runtime_check,
        "keys": [key.fingerprint for key in found.keys],
        "rules": rules,
    }


def _show(state: State, found: tuple[PolicyFile, ...]) -> None:
    if not found:
        state.console.line("no policy is in force here")
    for each in found:
        document = _document(each)
        enforced = "enforced" if each.policy.enforce else "not enforced: what it would refuse passes with a warning"
        state.console.line(f"{each.name} (by {each.origin}): {enforced}")
        rows = [
            (rule["name"], " ".join(rule["repositories"]), ", ".join(rule["signers"]), ", ".join(rule["attestations"]))
            for rule in document["rules"]
        ]
        state.console.table(("rule", "repositories", "signers", "attestations"), rows)
        state.console.line(f"what no rule is about: {each.policy.unmatched}")
