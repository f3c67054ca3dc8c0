"""The policy file: every key with its type, default and meaning, declared once.

From these declarations come the reader, the path of a wrong key with a suggestion, the tables in ``docs/trust.md`` and
the JSON schema of ``bentotool schema policy``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime, timezone
from typing import Any

from bentotool.build.reference import reference_page, schema_document
from bentotool.build.schema import (
    Parser,
    Where,
    boolean,
    check_text,
    one_of,
    parser,
    read_table,
    sequence,
    table_schema,
    text,
    text_map,
    wrong_type,
)
from bentotool.build.schema import key as declared  # a signer has a field of that name
from bentotool.errors import ConfigError
from bentotool.trust.predicatetypes import PREDICATES, SLSA

__all__ = [
    "PREDICATE_TYPES",
    "SAFETY",
    "AttestationRule",
    "FieldRule",
    "Policy",
    "Rule",
    "SignerRule",
    "policy_page",
    "policy_schema",
    "read_policy",
]

SAFETY = ("data", "program", "pickle")
PREDICATE_TYPES: Mapping[str, str] = {"provenance": SLSA, **PREDICATES}
"""Short names of predicate types, those of ``attest --type`` among them; any other is written as its URI."""
_MAX_RULES = 1000
_PATTERN = r"[A-Za-z0-9*][A-Za-z0-9._:/*+-]{0,511}"
_TAG = r"[A-Za-z0-9_*][A-Za-z0-9_.*-]{0,127}"
_DIGEST = r"sha256:[0-9a-f]{64}"
_VERSION = r"\d+(?:\.\d+){0,5}"

_texts = sequence(text())


@parser({"type": "string", "format": "regex"}, "regular expression")
def _regex(value: object, where: Where) -> str:
    found = text()(value, where)
    try:
        re.compile(found)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(f"{found[:120]!r} is no regular expression: {error}"[:300], path=where) from None
    return found


@parser({"type": "integer", "minimum": 1, "maximum": 100}, "number")
def _count(value: object, where: Where) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(value, where, "a number")
    if not 1 <= value <= 100:
        raise ConfigError(f"expected a number from 1 to 100, got {value}", path=where)
    return value


@parser({"type": "string"}, "date or RFC 3339 time")
def _moment(value: object, where: Where) -> datetime:
    if isinstance(value, str):
        stated = check_text(value, where).strip()
        try:
            value = datetime.fromisoformat(re.sub("[Zz]$", "+00:00", stated))  # Python 3.10 reads no Z
        except ValueError:
            raise ConfigError(f"expected a date or an RFC 3339 time, got {stated[:80]!r}", path=where) from None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=timezone.utc)
    if not isinstance(value, datetime):
        raise wrong_type(value, where, "a date or an RFC 3339 time")
    return value if value.tzinfo else value.replace(tzinfo=timezone.utc)


_STEPS: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 32},
    ]
}


@parser(_STEPS, "path")
def _steps(value: object, where: Where) -> tuple[str, ...]:
    """A path into a predicate; where a name has a dot in it, a list of names."""
    found = tuple(text()(value, where).split(".")) if isinstance(value, str) else _texts(value, where)
    if not found or len(found) > 32 or not all(found):
        raise ConfigError("expected names with dots between them, such as runDetails.builder.id", path=where)
    return found


@parser({"type": ["string", "number", "boolean"]}, "text, number or true or false")
def _scalar(value: object, where: Where) -> str | int | float | bool:
    if isinstance(value, str):
        return check_text(value, where)
    if isinstance(value, (bool, int, float)):
        return value
    raise wrong_type(value, where, "text, a number, or true or false")


@parser({"anyOf": [{"enum": list(PREDICATE_TYPES)}, {"type": "string", "pattern": "^[a-z]+:"}]}, "type")
def _predicate_type(value: object, where: Where) -> str:
    found = text()(value, where)
    if found in PREDICATE_TYPES:
        return PREDICATE_TYPES[found]
    if re.fullmatch(r"[a-z][a-z0-9+.-]*:\S+", found):
        return found
    raise ConfigError(f"unknown type {found[:80]!r}", path=where, hint=f"a URI, or one of {', '.join(PREDICATE_TYPES)}")


@dataclass(frozen=True)
class SignerRule:
    """Somebody whose signature counts."""

    identity: str = declared(text(), "", "mail address or URI of the certificate, exactly")
    identity_regex: str = declared(_regex, "", "the same as a regular expression, which has to match all of it")
    issuer: str = declared(text(r"https?://\S+", "a URL"), "", "who vouched for the identity, exactly; always with it")
    claims: Mapping[str, str] = declared(text_map(), {}, "further claims of the certificate, exactly, by name")
    key: str = declared(text(), "", "file with a public key (PEM), relative to the policy")
    key_pem: str = declared(text(multiline=True), "", "the public key itself (PEM)")


_WHO = ("identity", "identity_regex", "key", "key_pem")


def _only(name: str, *besides: str) -> dict[str, Any]:
    """JSON schema of a signer of one kind, and of no other."""
    excluded = [*(each for each in _WHO if each != name), *(() if besides else ("issuer", "claims"))]
    return {"required": [name, *besides], "not": {"anyOf": [{"required": [each]} for each in excluded]}}


_SIGNER_SCHEMA = {
    **table_schema(SignerRule),
    "oneOf": [_only("identity", "issuer"), _only("identity_regex", "issuer"), _only("key"), _only("key_pem")],
}


@parser(_SIGNER_SCHEMA, "table")
def _signer(value: object, where: Where) -> SignerRule:
    found = read_table(SignerRule, value, where)
    kinds = [name for name in ("identity", "identity_regex", "key", "key_pem") if getattr(found, name)]
    if len(kinds) != 1:
        raise ConfigError("expected one of identity, identity_regex, key and key_pem", path=where)
    if kinds[0].startswith("identity"):
        if not found.issuer:
            raise ConfigError(
                "an identity needs the issuer that vouches for it",
                path=where,
                hint="e.g. issuer: https://token.actions.githubusercontent.com",
            )
    elif found.issuer or found.claims:
        raise ConfigError("a key has no issuer and no claims", path=where)
    return found


@dataclass(frozen=True)
class FieldRule:
    """What a field of a predicate has to say."""

    path: tuple[str, ...] = declared(_steps, (), "names with dots between them, or a list of names; `*` is every item")
    equals: str | int | float | bool | None = declared(_scalar, None, "the value, exactly")
    one_of: tuple[str | int | float | bool, ...] = declared(sequence(_scalar), (), "the values that are good")
    matches: str = declared(_regex, "", "a regular expression that has to match all of the text")


_FIELD_SCHEMA = {
    **table_schema(FieldRule),
    "required": ["path"],
    "oneOf": [{"required": [name]} for name in ("equals", "one_of", "matches")],
}


@parser(_FIELD_SCHEMA, "table")
def _field(value: object, where: Where) -> FieldRule:
    found = read_table(FieldRule, value, where)
    if not found.path:
        raise ConfigError("a field needs a path", path=where, hint="e.g. path: runDetails.builder.id")
    if sum((found.equals is not None, bool(found.one_of), bool(found.matches))) != 1:
        raise ConfigError("expected one of equals, one_of and matches", path=where)
    return found


@dataclass(frozen=True)
class AttestationRule:
    """A signed statement that has to be there."""

    type: str = declared(_predicate_type, "", f"its predicate type: a URI, or {', '.join(PREDICATE_TYPES)}")
    fields: tuple[FieldRule, ...] = declared(sequence(_field), (), "what it has to say; all of them")
    signers: tuple[SignerRule, ...] = declared(sequence(_signer), (), "who may sign it; default: those of the rule")


@parser({**table_schema(AttestationRule), "required": ["type"]}, "table")
def _attestation(value: object, where: Where) -> AttestationRule:
    found = read_table(AttestationRule, value, where)
    if not found.type:
        raise ConfigError("an attestation needs a type", path=where, hint="e.g. type: provenance")
    return found


_pattern = text(_PATTERN, "a repository, with * for a part of its path and ** for any rest")


@dataclass(frozen=True)
class Rule:
    """What artifacts of some repositories need. Every rule that fits an artifact has to be met."""

    name: str = declared(text(), "", "what messages call it; default: its place in the file")
    repositories: tuple[str, ...] = declared(
        sequence(_pattern), (), "HOST/REPOSITORY; `*` stands for a part of the path, `**` for any rest"
    )
    exclude: tuple[str, ...] = declared(sequence(_pattern), (), "those of them that the rule is not about")
    signers: tuple[SignerRule, ...] = declared(sequence(_signer), (), "who may sign; none: no signature is needed")
    minimum: int = declared(_count, 1, "how many of the signers have to have signed, each counted once")
    signed_after: datetime | None = declared(
        _moment, None, "older signatures do not count, nor those without a time of a log or timestamp authority"
    )
    aliases: tuple[str, ...] = declared(
        sequence(text(_TAG, "a tag, with * for any part of it")),
        ("latest",),
        "tags that may lead to a version of another name; `*` stands for any part. Any other tag has to be the version",
    )
    minimum_version: str = declared(
        text(_VERSION, "a version such as 1.4, in quotes"), "", "least version that the artifact states of itself"
    )
    attestations: tuple[AttestationRule, ...] = declared(sequence(_attestation), (), "signed statements that it needs")
    safety: tuple[str, ...] = declared(
        sequence(one_of(*SAFETY)), SAFETY, "safety classes that its models may have: data, program, pickle"
    )


@parser({**table_schema(Rule), "required": ["repositories"]}, "table")
def _rule(value: object, where: Where) -> Rule:
    found = read_table(Rule, value, where)
    if not found.repositories:
        raise ConfigError("a rule needs repositories", path=where, hint='e.g. repositories: ["ghcr.io/acme/**"]')
    if found.minimum > max(1, len(found.signers)) and not any(each.identity_regex for each in found.signers):
        raise ConfigError(
            f"{found.minimum} signatures are asked for, and {len(found.signers)} signers are named",
            path=(*where, "minimum"),
        )
    if not found.signers and found.signed_after:
        raise ConfigError("there are no signers whose signature could have a time", path=(*where, "signed_after"))
    for index, each in enumerate(found.attestations):
        if not (each.signers or found.signers):
            raise ConfigError(
                "nobody is named who may sign it",
                path=(*where, "attestations", str(index)),
                hint="name signers in the rule or here: an attestation that anybody may sign proves nothing",
            )
    return found


@parser({"enum": [1]}, "1")
def _format(value: object, where: Where) -> int:
    if value != 1 or isinstance(value, bool):
        raise ConfigError(f"this is a policy of format {str(value)[:20]}, and only 1 is known", path=where)
    return 1


_rules: Parser[tuple[Rule, ...]] = sequence(_rule)


@dataclass(frozen=True)
class Policy:
    """A policy file as it stands; keys that it names as files are not read yet."""

    version: int = declared(_format, 1, "format of the file")
    enforce: bool = declared(boolean, False, "refuse what does not meet the rules; false: let it pass with a hint")
    unmatched: str = declared(one_of("allow", "deny"), "deny", "what no rule is about: allow or deny")
    runtime_check: bool = declared(boolean, False, "servers check every byte of the Bento when they start")
    revoked: tuple[str, ...] = declared(
        sequence(text(_DIGEST, "a digest, sha256: and 64 hexadecimal digits")), (), "digests that are refused always"
    )
    trust_config: str = declared(text(), "", "client trust config of a private sigstore, relative to the policy")
    rules: tuple[Rule, ...] = declared(_rules, (), "what is needed, by repository")


def read_policy(document: object, where: Where) -> Policy:
    """Read a parsed policy file.

    Args:
        where: the file, for messages.

    Raises:
        ConfigError: naming the path of what is wrong.
    """
    _refuse_empty(document, where)
    found = read_table(Policy, document, where)
    if len(found.rules) > _MAX_RULES:
        raise ConfigError(f"more than {_MAX_RULES} rules", path=(*where, "rules"))
    return found


def _refuse_empty(value: object, where: Where, depth: int = 0) -> None:
    """Refuse keys without a value, which a build configuration passes over: here one would loosen a rule unseen."""
    if depth < 32 and isinstance(value, Mapping):
        for name, inner in value.items():
            place = (*where, str(name)[:80])
            if name not in _NAMES and "claims" not in where:
                continue  # an unknown key, which is said of it in a moment
            if inner is None or (inner == [] and name not in ("aliases", "exclude", "revoked")):
                raise ConfigError("there is nothing here", path=place, hint="write a value, or leave the key out")
            _refuse_empty(inner, place, depth + 1)
    elif depth < 32 and isinstance(value, list):
        for index, inner in enumerate(value):
            _refuse_empty(inner, (*where, str(index)), depth + 1)


_NAMES = frozenset(
    each.name for table in (Policy, Rule, SignerRule, AttestationRule, FieldRule) for each in fields(table)
)
_ENTRIES: Mapping[str, type] = {
    "rules": Rule,
    "rules[].signers": SignerRule,
    "rules[].attestations": AttestationRule,
    "rules[].attestations[].fields": FieldRule,
}


def policy_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of ``policy.yaml``."""
    return schema_document(Policy, "policy.yaml", "What artifacts need before bentotool uses them.")


def policy_page() -> str:
    """All keys as Markdown tables."""
    return reference_page(Policy, _ENTRIES)
