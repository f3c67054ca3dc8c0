"""``use_arguments`` by itself: forms, conversions, errors, and what it says of secrets."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, Optional

import msgspec
import pytest

from bentotool.errors import ConfigError, UsageError
from bentotool.sdk.arguments import (
    arguments_schema,
    check_taken,
    declared,
    find_secret,
    provide,
    redacted,
    use_arguments,
    variable_of,
)
from bentotool.sdk.secret import Secret


@dataclasses.dataclass
class Plain:
    epochs: int
    rate: float = 0.5
    shuffle: bool = False
    names: list[str] = dataclasses.field(default_factory=list)
    mode: Literal["fast", "slow"] = "fast"
    token: Secret = Secret("default-token")
    spare: Optional[Secret] = None  # noqa: UP045 - the older spelling is understood too


class Struct(msgspec.Struct, rename="kebab"):
    n_epochs: Annotated[int, msgspec.Meta(ge=1)]
    token: Secret


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    provide({})


def test_texts_become_what_the_class_asks_for() -> None:
    provide({"epochs": "3", "rate": "1e-3", "shuffle": "true", "names": '["a", "b"]', "mode": "slow"})
    assert use_arguments(Plain) == Plain(3, 0.001, True, ["a", "b"], "slow")
    assert {a.name: a.value for a in declared() if a.given} == {
        "epochs": 3, "rate": 0.001, "shuffle": True, "names": ["a", "b"], "mode": "slow",
    }  # fmt: skip
    check_taken()
    provide({"n-epochs": 2, "token": "t"})
    assert use_arguments(Struct) == Struct(2, Secret("t"))


def test_values_survive_being_recorded() -> None:
    provide({"epochs": "3", "names": '["a"]'})
    first = use_arguments(Plain)
    recorded = {a.name: a.to_dict()["value"] for a in declared() if a.given}
    provide(json.loads(json.dumps(recorded)))
    assert use_arguments(Plain) == first


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "argument 'epochs' (int) is missing"),
        ({"epochs": "x"}, "argument 'epochs' must be int, not 'x'"),
        ({"epochs": 1.5}, "argument 'epochs' must be int"),
        ({"epochs": 1, "names": "a"}, "argument 'names' must be list[str]"),
        ({"epochs": 1, "mode": "medium"}, "argument 'mode' must be Literal['fast', 'slow']"),
        ({"epochs": 1, "token": 5}, "secret argument 'token' is no Secret"),
    ],
)
def test_what_does_not_fit_is_named(values: dict[str, Any], message: str) -> None:
    provide(values)
    with pytest.raises(UsageError) as caught:
        use_arguments(Plain)
    assert message in caught.value.message
    assert caught.value.hint


def test_an_argument_that_nobody_asked_for() -> None:
    provide({"epochs": 1, "name": "x"})
    use_arguments(Plain)
    with pytest.raises(UsageError, match="no argument 'name'") as caught:
        check_taken()
    assert caught.value.hint == "did you mean 'names'?"
    provide({"x": "1"})
    with pytest.raises(UsageError, match="takes none"):
        check_taken()


def test_without_a_type_all_are_texts() -> None:
    provide({"n": 3, "b": True, "l": [1], "t": "text"})
    arguments = use_arguments()
    assert vars(arguments) == {"n": "3", "b": "true", "l": "[1]", "t": "text"}
    check_taken()
    assert getattr(arguments, "absent", None) is None
    with pytest.raises(UsageError, match="argument 'absent' is missing"):
        _ = arguments.absent
    assert copy.deepcopy(arguments) == arguments


def test_a_secret_comes_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert variable_of("api-key.x") == "BENTOTOOL_ARG_API_KEY_X"
    monkeypatch.setenv("BENTOTOOL_ARG_TOKEN", "from-env")
    monkeypatch.setenv("BENTOTOOL_ARG_RATE", "9")
    provide({"epochs": 1})
    made = use_arguments(Plain)
    assert (made.token.get_secret_value(), made.rate) == ("from-env", 0.5)
    provide({"epochs": 1, "token": "given"})
    assert use_arguments(Plain).token.get_secret_value() == "given"
    monkeypatch.delenv("BENTOTOOL_ARG_TOKEN")
    provide({"n-epochs": 1})
    with pytest.raises(UsageError, match="secret argument 'token'") as caught:
        use_arguments(Struct)
    assert "BENTOTOOL_ARG_TOKEN" in str(caught.value.hint)
    provide({"n-epochs": 1}, building=True)
    assert use_arguments(Struct).token.get_secret_value() == "", "given when the Bento runs"


def test_a_secret_shows_itself_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret("hunter2-hunter2")
    logging.getLogger("x").warning("%s %r %s", secret, secret, [secret])
    shown = [str(secret), repr(secret), f"{secret}", f"{secret!r:>30}", f"{[secret]}", caplog.text]
    assert not any("hunter2" in text for text in shown)
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        json.dumps(secret)
    assert secret == Secret("hunter2-hunter2")
    assert len({secret, Secret("hunter2-hunter2")}) == 1
    provide({"epochs": 1, "token": "hunter2-hunter2"})
    use_arguments(Plain)
    assert "hunter2" not in repr(declared()) + json.dumps([a.to_dict() for a in declared()])
    assert redacted("no hunter2-hunter2!") == "no **********!"
    assert find_secret({"a": [{"b": "x hunter2-hunter2"}]}) == ("token", "a.0.b")
    assert find_secret({"hunter2-hunter2": 1}) == ("token", "")
    assert find_secret({"a": secret}) == ("token", "a")
    assert find_secret({"a": ["other", 3, None], "description": "a line of **********"}) is None
    assert find_secret({"labels": {"a": f"Bearer {secret}"}}) == ("token", "labels.a")
    schema = json.dumps(arguments_schema())
    assert "default-token" not in schema
    assert json.loads(schema)["properties"]["token"] == {"type": "string", "format": "password", "writeOnly": True}


def test_pydantic_models(require_package: Callable[[str], None]) -> None:
    require_package("pydantic")
    import pydantic

    class Inner(pydantic.BaseModel):
        key: pydantic.SecretStr

    class Model(pydantic.BaseModel):
        epochs: int = pydantic.Field(ge=1)
        names: list[str] = []
        size: int = pydantic.Field(3, alias="batch-size")
        token: pydantic.SecretStr = pydantic.SecretStr("default-token")
        ours: Secret = Secret("x")
        inner: Optional[Inner] = None  # noqa: UP045

    provide({"epochs": "3", "names": '["a"]', "batch-size": "8", "token": "given-token", "ours": "mine"})
    made = use_arguments(Model)
    assert (made.epochs, made.names, made.size) == (3, ["a"], 8)
    assert (made.token.get_secret_value(), made.ours.get_secret_value()) == ("given-token", "mine")
    check_taken()
    assert {a.name: (a.secret, a.value) for a in declared()} == {
        "epochs": (False, 3), "names": (False, ["a"]), "batch-size": (False, 8),
        "token": (True, None), "ours": (True, None), "inner": (True, None),
    }  # fmt: skip
    assert "default-token" not in json.dumps(arguments_schema())
    assert "mine" not in made.model_dump_json()
    for values, message in (({}, "'epochs' (int) is missing"), ({"epochs": 0}, "greater than or equal to 1")):
        provide(values)
        with pytest.raises(UsageError) as caught:
            use_arguments(Model)
        assert message in caught.value.message

    for inner in ({"key": "inner-secret"}, '{"key": "inner-secret"}'):
        provide({"epochs": 1, "inner": inner})
        assert use_arguments(Model).inner == Inner(key=pydantic.SecretStr("inner-secret"))
        assert redacted("so inner-secret") == "so **********"
        assert find_secret(["x inner-secret"]) == ("inner", "0")
        assert "inner-secret" not in json.dumps([a.to_dict() for a in declared()])

    class Open(pydantic.BaseModel, extra="allow"):
        epochs: int = 1

    provide({"epochs": 2, "more": "x"})
    assert use_arguments(Open).more == "x"  # type: ignore[attr-defined]
    check_taken()
    assert {a.name: a.value for a in declared()} == {"epochs": 2, "more": "x"}

    class Checked(pydantic.BaseModel):
        token: pydantic.SecretStr

        @pydantic.field_validator("token")
        @classmethod
        def _long(cls, value: pydantic.SecretStr) -> pydantic.SecretStr:
            raise ValueError("too short: " + value.get_secret_value())

    provide({"token": "short-token"})
    with pytest.raises(UsageError) as caught:
        use_arguments(Checked)
    assert "short-token" not in str(caught.value)


def test_two_calls_in_one_service() -> None:
    provide({"epochs": 1, "n-epochs": 2, "token": "tttttt"})
    use_arguments(Plain)
    use_arguments(Struct)
    check_taken()
    assert set(arguments_schema() or {}) == {"allOf"}
    assert {a.name for a in declared()} >= {"epochs", "n-epochs"}


@pytest.mark.parametrize("wrong", [int, str, object])
def test_a_class_that_is_none(wrong: type) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        use_arguments(wrong)


def test_neither_pydantic_nor_msgspec_is_imported_for_nothing() -> None:
    code = "import bentotool, sys; bentotool.use_arguments(); bentotool.Secret('x'); bentotool.images.Image();"
    code += "print([name for name in ('pydantic', 'msgspec', 'litestar') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
