"""Loads an MLflow model. This file travels in a Bento: standard library, mlflow, and PyYAML that mlflow needs.

``MLmodel`` names the module that loads the model, and what that module reads. Only MLflow's own modules are let load
anything. Without ``trust`` only those are let that read a data format and nothing else, with settings that cannot make
them do more: the list is :data:`NATIVE`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MLMODEL = "MLmodel"
PYFUNC = "python_function"
_MAX_MLMODEL = 4 << 20  # bytes; signatures of thousands of columns have some hundred thousand
_MAX_EVENTS = 200_000
_MAX_DEPTH = 50
_LOADER = re.compile(r"mlflow(?:\.[a-z][a-z0-9_]*)+", re.ASCII)
_FILE = re.compile(r"[\w-][\w.-]*", re.ASCII)
_XGBOOST = re.compile(r"xgboost\.core\.Booster|xgboost\.sklearn\.XGB(?:RF)?(?:Classifier|Regressor|Ranker|Model)")
_PYFUNC_KEYS = {"loader_module", "data", "env", "python_version", "predict_fn", "streamable", "code"}
_PATHS = {
    *("code", "data", "model_path", "python_model", "model_code_path", "pickled_model", "model_binary", "model_data"),
    *("saved_model_dir", "artifact_path"),
}
_ABSOLUTE = re.compile(r"[/\\~]|[a-zA-Z]:")
_SESSION_KEYS = {"inter_op_num_threads", "intra_op_num_threads", "execution_mode", "graph_optimization_level"}


class UnsafeModelError(ValueError):
    """Loading would run code that the model chooses."""

    unsafe = True


class InvalidModelError(ValueError):
    """The folder is not an MLflow model, or a damaged one; the message says what is wrong."""


def _anything(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)


def _ignored(value: object) -> bool:
    return True


def _nothing(value: object) -> bool:
    return value is None


def _one_of(pattern: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _providers(value: object) -> bool:
    """Names only: an execution provider's options can name libraries."""
    return value is None or (isinstance(value, list) and all(isinstance(item, str) for item in value))


def _session_options(value: object) -> bool:
    return value is None or (isinstance(value, Mapping) and value.keys() <= _SESSION_KEYS)


NATIVE: Mapping[str, Mapping[str, Callable[[object], bool]]] = {
    "xgboost": {"model_class": _one_of(_XGBOOST.pattern), "model_format": _anything, "xgb_version": _anything},
    "lightgbm": {  # for another class it reads pickles, or skops files with the types that the model itself trusts
        "model_class": _one_of(r"lightgbm\.basic\.Booster"),
        "serialization_format": _ignored,
        "skops_trusted_types": _ignored,
        "lgb_version": _anything,
    },
    "catboost": {
        "model_type": _one_of("CatBoost(?:Classifier|Regressor|Ranker)?"),
        "save_format": _one_of("cbm|json"),
        "catboost_version": _anything,
    },
    "onnx": {"providers": _providers, "onnx_session_options": _session_options, "onnx_version": _anything},
}
"""Flavours whose MLflow module reads a data format, and the settings it may have; ``data`` and no ``code`` for all."""


_CANNOT = {
    "mlflow.pyfunc.model": "it is a Python object or script",
    "mlflow.sklearn": "mlflow.sklearn reads pickles, and skops files with the types that the model itself trusts",
}


@dataclass(frozen=True)
class Model:
    """What an ``MLmodel`` says.

    Attributes:
        document: all of it.
        flavors: by name; ``python_function`` is one.
        native: the flavour of :data:`NATIVE` that it is loaded as; empty for none.
        data: name of the file that the flavour reads.
        reasons: why loading may run code of the model's; none for a native one.
    """

    document: Mapping[str, Any]
    flavors: Mapping[str, Mapping[str, Any]]
    native: str
    data: str
    reasons: tuple[str, ...]


def load(path: str | Path, *, trust: bool = False, **options: Any) -> Any:
    """What ``mlflow.pyfunc.load_model`` gives for a model's folder.

    Args:
        path: the folder.
        trust: says that its origin is trusted; without it only native data formats are loaded.
        options: other arguments of ``mlflow.pyfunc.load_model``.

    Raises UnsafeModelError for a model that needs ``trust``, or whose loader is none of MLflow's.
    """
    folder = Path(path)
    model = read_model(folder / MLMODEL)
    if model.reasons and trust is not True:
        raise UnsafeModelError(
            f"{folder.name} can run code when it is loaded ({model.reasons[0]}); trust=True loads it"
        )
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(str(folder), **options)


def read_model(path: Path) -> Model:
    """Read and judge an ``MLmodel``.

    Raises InvalidModelError for one that is damaged or has no ``python_function``, and UnsafeModelError for one that
    names a loader which is not MLflow's, or files outside the folder.
    """
    with path.open("rb") as file:
        text = file.read(_MAX_MLMODEL + 1)
    document = _parsed(text)
    flavors = document.get("flavors") if isinstance(document, dict) else None
    if not isinstance(flavors, dict) or not all(isinstance(name, str) for name in flavors):
        raise InvalidModelError(f"{MLMODEL} names no flavors")
    if not all(isinstance(settings, dict) for settings in flavors.values()):
        raise InvalidModelError(f"{MLMODEL} has a flavor without settings")
    pyfunc = flavors.get(PYFUNC)
    if pyfunc is None:
        raise InvalidModelError(f"{MLMODEL} has no {PYFUNC} flavor, so mlflow.pyfunc cannot load it")
    loader = pyfunc.get("loader_module")
    if not isinstance(loader, str):
        raise InvalidModelError(f"{MLMODEL} names no loader_module")
    if not _LOADER.fullmatch(loader):
        raise UnsafeModelError(f"{MLMODEL} names the loader {loader!r:.80}, which is not a module of mlflow's")
    for name, settings in flavors.items():
        _check_paths(name, settings)
    native, data, reasons = _judge(flavors, loader)
    return Model(document, flavors, native, data, tuple(reasons))


def _judge(flavors: Mapping[str, Mapping[str, Any]], loader: str) -> tuple[str, str, list[str]]:
    pyfunc = flavors[PYFUNC]
    others = sorted(flavors.keys() - {PYFUNC})
    native = others[0] if len(others) == 1 and others[0] in NATIVE else ""
    if not native:
        return "", "", [_CANNOT.get(loader, f"{loader} reads pickles or code")]
    if loader != f"mlflow.{native}":
        return "", "", [f"it is loaded by {loader}"]
    reasons = [f"{PYFUNC} has {key!r:.60}" for key in sorted(map(str, pyfunc.keys() - _PYFUNC_KEYS))]
    if pyfunc.get("code") is not None:
        reasons.append("it brings code")
    if pyfunc.get("predict_fn", "predict") != "predict":
        reasons.append(f"{PYFUNC} predicts by {pyfunc['predict_fn']!r:.60}")
    settings = flavors[native]
    data = settings.get("data")
    if not isinstance(data, str) or not _FILE.fullmatch(data) or pyfunc.get("data", data) != data:
        return native, "", [*reasons, f"flavor {native} names no file of the folder"]
    allowed = {**NATIVE[native], "code": _nothing, "data": _anything}
    for key, value in settings.items():
        if key not in allowed or not allowed[key](value):
            reasons.append(f"flavor {native} has {str(key)[:60]} {value!r:.60}")
    return native, data, reasons


def _check_paths(flavor: str, settings: Mapping[str, Any]) -> None:
    """What MLflow joins to the folder's path is relative and does not climb."""
    for key in _PATHS & settings.keys():
        value = settings[key]
        if isinstance(value, str) and (_ABSOLUTE.match(value) or ".." in re.split(r"[/\\]", value)):
            raise UnsafeModelError(f"{MLMODEL}: {key} of flavor {flavor!r:.60} is {value!r:.80}, outside the folder")


def _parsed(text: bytes) -> Any:
    """YAML without aliases, which can blow up a few lines to gigabytes; bounded in size and depth."""
    import yaml

    if len(text) > _MAX_MLMODEL:
        raise InvalidModelError(f"{MLMODEL} has more than {_MAX_MLMODEL} bytes")
    kind = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    try:
        for number, event in enumerate(yaml.parse(text, Loader=kind)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise InvalidModelError(f"{MLMODEL} has aliases, which MLflow does not write")
            if number > _MAX_EVENTS or depth > _MAX_DEPTH:
                raise InvalidModelError(f"{MLMODEL} has too many values, or is nested too deep")
        reader = kind(text)  # what yaml.safe_load does, in C where there is the library
        try:
            return reader.get_single_data()
        finally:
            reader.dispose()
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError) as error:
        if isinstance(error, InvalidModelError):
            raise
        text_of = str(error).replace("\n", " ")[:200]
        raise InvalidModelError(f"{MLMODEL} is not valid YAML: {text_of}") from None
