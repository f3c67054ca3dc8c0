"""Detects, describes and saves scikit-learn models; imports neither scikit-learn nor skops to look at a file."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bentotool.errors import MissingDependencyError, UsageError
from bentotool.interfaces import JSON, Match, ModelInfo, SourceFile, TensorSpec
from bentotool.models.main_files import main_files
from bentotool.models.pickles import unwrapped
from bentotool_sklearn.canonical import rewrite
from bentotool_sklearn.hooks import COMPRESSED, PICKLES
from bentotool_sklearn.loader import (
    InvalidModelError,
    nodes,
    read_schema,
    starts_as_zip,
    unknown_types,
)

NAME = "sklearn"
_PICKLES = (".joblib", ".pkl", ".pickle")
_VERSION = re.compile(r"\d+(\.\d+)+([abrc.]\w+)*")
_MAX_FEATURES = 1 << 40
_SAMPLE = 64 * 1024
_TAIL = 64 * 1024


class SklearnFramework:
    """See :class:`bentotool.protocols.Framework`."""

    def detect(self, files: Sequence[SourceFile]) -> Match | None:
        main = _main_file(files)
        if main is None:
            return None
        name = main.name.lower()
        if _is_pickle(main.path) or (name.endswith(_PICKLES) and not _starts_as_skops(main)):
            return Match(NAME, "pickle", 0.6 if _mentions_sklearn(main.path) else 0.2, main.name)
        if name.endswith(".skops"):
            _schema(main)
            return Match(NAME, "skops", 1.0, main.name)
        if not starts_as_zip(main.path):
            return None
        try:
            schema = read_schema(main.path)
        except InvalidModelError:
            return None
        return Match(NAME, "skops", 0.9, main.name) if "_skops_version" in schema else None

    def describe(self, files: Sequence[SourceFile]) -> ModelInfo:
        match = self.detect(files)
        main = _main_file(files)
        if match is None or main is None:
            raise UsageError("there is no scikit-learn model among the files")
        if match.format == "pickle":
            needs = ("joblib", "numpy", "scikit-learn")
            return ModelInfo(NAME, "pickle", requirements=needs, safety="pickle", main_file=main.name)
        schema = _schema(main)
        unknown = unknown_types(schema)
        features = _features(schema)
        metadata: dict[str, JSON] = {"class": _public_name(schema)}
        version = _json_value(schema, "_sklearn_version")
        version = version if isinstance(version, str) and _VERSION.fullmatch(version) else None
        if version:
            metadata["sklearn_version"] = version
        if features:
            metadata["n_features_in"] = features
        if unknown:
            metadata["unknown_types"] = unknown
            metadata["needs_trust"] = [f"it holds {name:.80}, which is not known to be safe" for name in unknown[:20]]
        return ModelInfo(
            framework=NAME,
            format="skops",
            inputs=(TensorSpec("X", "float64", (None, features)),) if features else (),
            metadata=metadata,
            # an estimator's attributes change from version to version, so it is loaded with the one that made it
            requirements=(f"scikit-learn=={version}" if version else "scikit-learn", "skops>=0.11"),
            safety="pickle" if unknown else "data",
            main_file=main.name,
        )

    def save(self, obj: object, directory: Path, **options: object) -> None:
        """Write an estimator as ``model.skops``; the same estimator gives the same bytes."""
        if options:
            raise UsageError(f"sklearn takes no option {', '.join(sorted(options))} when saving")
        if isinstance(obj, type) or not callable(getattr(obj, "get_params", None)):
            raise UsageError(f"{obj!r:.80} is not a scikit-learn estimator", hint="give a fitted estimator")
        try:
            import skops.io
        except ImportError as error:
            raise MissingDependencyError("skops", purpose="to save scikit-learn models") from error
        try:
            content = skops.io.dumps(obj)
        except Exception as error:  # a lambda, a Birch, whatever an attribute of it raises
            raise UsageError(
                f"{type(obj).__name__} cannot be saved by skops: {_one_line(error)}",
                hint="joblib.dump it and import the file with --trust, if it has to be a pickle",
            ) from error
        rewrite(io.BytesIO(content), Path(directory) / "model.skops")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _main_file(files: Sequence[SourceFile]) -> SourceFile | None:
    """The one skops file, else the one pickle, else a single file whatever it is."""
    kept = main_files(files, _starts_as_skops, (".skops",), sure=False)
    pickled = main_files(files, lambda file: _is_pickle(file.path), _PICKLES, sure=False)
    for found in (kept, pickled):
        if len(found) > 1:
            names = ", ".join(sorted(file.name for file in found))
            raise UsageError(f"there are several scikit-learn models: {names}", hint="import one file")
        if found:
            return found[0]
    return files[0] if len(files) == 1 else None


def _starts_as_skops(file: SourceFile) -> bool:
    """As a zip archive; in whose directory, at the end of the file, stands the description of an object."""
    if not starts_as_zip(file.path):
        return False
    with file.path.open("rb") as stream:
        stream.seek(max(0, file.path.stat().st_size - _TAIL))
        return b"schema.json" in stream.read()


def _schema(main: SourceFile) -> dict[str, Any]:
    try:
        return read_schema(main.path)
    except InvalidModelError as error:
        hint = "was it cut short while it was copied, or is it another format?"
        raise UsageError(f"{main.path.name} is not a valid skops file: {error}", hint=hint) from None


def _json_value(schema: dict[str, Any], attribute: str) -> object:
    """The value of an estimator's attribute: the outermost that has it, the first step of a pipeline before the
    second.
    """
    for node in nodes(schema):
        content = node.get("content")
        table = content.get("content") if isinstance(content, dict) else None
        value = table.get(attribute) if isinstance(table, dict) else None
        if isinstance(value, dict) and value.get("__loader__") == "JsonNode":
            try:
                found: object = json.loads(value["content"])
            except (KeyError, TypeError, ValueError, RecursionError):
                continue
            return found
    return None


def _features(schema: dict[str, Any]) -> int | None:
    value = _json_value(schema, "n_features_in_")
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < _MAX_FEATURES:
        return None
    return value


def _public_name(schema: dict[str, Any]) -> str:
    """``sklearn.linear_model._logistic`` and ``LogisticRegression`` as users import them."""
    parts = [part for part in str(schema["__module__"]).split(".") if not part.startswith("_")]
    return ".".join([*parts, str(schema["__class__"])])


def _is_pickle(path: Path) -> bool:
    """Protocols 2 to 5: an opcode and its number at the start, and the opcode "stop" at the end; or compressed."""
    with path.open("rb") as file:
        head = file.read(2)
        if head in COMPRESSED:
            return unwrapped(head + file.read(_SAMPLE), 2)[:2] in PICKLES
        if len(head) < 2 or head[0] != 0x80 or not 2 <= head[1] <= 5:
            return False
        file.seek(-1, 2)
        return file.read(1) == b"."


def _mentions_sklearn(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(_SAMPLE)
    return path.suffix.lower() == ".joblib" or b"sklearn" in (unwrapped(head) if head[:2] in COMPRESSED else head)
