"""Template arguments declared as a pydantic model. Imported only where a service does so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic

from bentotool.errors import ConfigError
from bentotool.sdk.argument_forms import Form, FormField, WrongValue, read_json, secret_in, shown_type

__all__ = ["pydantic_form"]


def pydantic_form(cls: Any) -> Form:
    """Read a model.

    Raises:
        ConfigError: a field has no JSON schema.
    """
    try:
        schema = cls.model_json_schema()
    except pydantic.errors.PydanticInvalidForJsonSchema as error:
        raise ConfigError(f"use_arguments({cls.__name__}): {str(error).splitlines()[0]}") from None
    definitions, properties = schema.get("$defs", {}), schema.get("properties", {})
    names = {_name(key, info): key for key, info in cls.model_fields.items()}
    fields = []
    for name, key in names.items():
        info, secret = cls.model_fields[key], secret_in(properties.get(name, {}), definitions)
        if secret:
            properties[name].pop("default", None)
        fields.append(FormField(name, shown_type(info.annotation), info.is_required(), secret))

    def dump(made: Any) -> dict[str, Any]:
        try:
            document: dict[str, Any] = made.model_dump(mode="json")
        except pydantic.errors.PydanticUserError as error:
            raise WrongValue("", str(error).splitlines()[0]) from None
        return {name: document[key] for name, key in names.items() if key in document} | {
            name: value for name, value in document.items() if name not in cls.model_fields
        }

    return Form(
        tuple(fields), lambda values: _make(cls, values), dump, schema, cls.model_config.get("extra") == "allow"
    )


def _name(key: str, info: Any) -> str:
    for alias in (info.validation_alias, info.alias):
        if isinstance(alias, str):
            return alias
    return key


def _make(cls: Any, values: Mapping[str, Any]) -> Any:
    try:
        return cls.model_validate(dict(values))
    except pydantic.ValidationError as error:
        wrong = _errors(error)
    read = {name: read_json(values[name]) for name, _ in wrong if isinstance(values.get(name), str)}
    try:
        return cls.model_validate({**values, **{name: value for name, value in read.items() if value is not None}})
    except pydantic.ValidationError as error:
        name, reason = _errors(error)[0]
    raise WrongValue(name, reason)


def _errors(error: pydantic.ValidationError) -> list[tuple[str, str]]:
    """Name and reason of each; the value itself is left out, as it may be a secret."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [(str(item["loc"][0]) if item["loc"] else "", item["msg"]) for item in found]
