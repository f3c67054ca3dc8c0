"""Detects and describes MLflow models by their files; mlflow is not imported."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from bentotool.errors import NotFoundError, UnsafeError, UsageError
from bentotool.interfaces import JSON, Match, ModelInfo, SourceFile
from bentotool.plugins import load_plugins
from bentotool.sdk.wording import kind_of
from bentotool_mlflow.loader import MLMODEL, PYFUNC, InvalidModelError, Model, UnsafeModelError, read_model
from bentotool_mlflow.requirements import read_python, read_requirements
from bentotool_mlflow.signature import read_params, read_schema

NAME = "mlflow"
_FACTS = ("model_uuid", "model_id", "run_id", "mlflow_version", "utc_time_created")
_TEXTS = {  # files that MLflow writes beside a model, and that nothing executes
    *(MLMODEL, "conda.yaml", "python_env.yaml", "requirements.txt", "registered_model_meta"),
    *("input_example.json", "serving_input_example.json", "README.md", "LICENSE"),
}
_MAX_REASONS = 20


class MlflowFramework:
    """See :class:`bentotool.protocols.Framework`."""

    def detect(self, files: Sequence[SourceFile]) -> Match | None:
        return Match(NAME, "mlflow", 1.0) if _read(files) is not None else None

    def describe(self, files: Sequence[SourceFile]) -> ModelInfo:
        model = _read(files)
        if model is None:
            raise UsageError(f"there is no {MLMODEL} among the files")
        by_name = {file.name: file.path for file in files}
        native, doubts = _native(model, files)
        metadata = _facts(model, by_name)
        signature = model.document.get("signature")
        signature = signature if isinstance(signature, dict) else {}
        try:
            inputs, outputs = read_schema(signature, "inputs"), read_schema(signature, "outputs")
            params = read_params(signature)
        except InvalidModelError as error:
            raise _invalid(error) from None
        if params:
            metadata["params"] = params
        if doubts:
            metadata["needs_trust"] = doubts[:_MAX_REASONS]
        requirements, left = read_requirements(by_name)
        if left:
            metadata["requirements_left_out"] = list(left[:_MAX_REASONS])
        return ModelInfo(
            framework=NAME,
            format="mlflow",
            inputs=inputs or (native.inputs if native else ()),
            outputs=outputs or (native.outputs if native else ()),
            metadata=metadata,
            requirements=requirements,
            safety=native.safety if native and not doubts else "pickle",
        )

    def save(self, obj: object, directory: Path, **options: object) -> None:
        """Copy the folder of a model, which ``mlflow.<flavor>.save_model`` wrote."""
        if options:
            raise UsageError(f"mlflow takes no option {', '.join(sorted(options))} when saving")
        if not isinstance(obj, str | Path):
            raise UsageError(
                f"{kind_of(obj)} is not the path of an MLflow model",
                hint="write it with mlflow.<flavor>.save_model(model, path) and give the path",
            )
        if not (Path(obj) / MLMODEL).is_file():
            raise NotFoundError(f"there is no {MLMODEL} in {obj}", hint="give the folder of an MLflow model")
        shutil.copytree(obj, directory, dirs_exist_ok=True, symlinks=True)


def _read(files: Sequence[SourceFile]) -> Model | None:
    main = next((file for file in files if file.name == MLMODEL), None)
    if main is None:
        return None
    try:
        return read_model(main.path)
    except InvalidModelError as error:
        raise _invalid(error) from None
    except UnsafeModelError as error:
        raise UnsafeError(str(error), hint="save the model again with one of MLflow's own flavors") from None


def _invalid(error: InvalidModelError) -> UsageError:
    return UsageError(str(error), hint="give a folder as mlflow.<flavor>.save_model writes it, or the model file in it")


def _native(model: Model, files: Sequence[SourceFile]) -> tuple[ModelInfo | None, list[str]]:
    """What the format's own plugin says of the files that hold the model, and why loading may run code all the same.

    A file that nobody accounts for is a doubt: it may be a pickle whatever its name is.
    """
    if model.reasons:
        return None, list(model.reasons)
    plugins = load_plugins(warn=lambda _: None)  # what fails to load was told already
    if model.native not in plugins.frameworks():
        return None, [f"{model.data} cannot be checked without the plugin bentotool-{model.native}"]
    rest = [file for file in files if file.name not in _TEXTS]
    framework = plugins.framework(model.native)
    match = framework.detect(rest) if rest else None
    if match is None or match.main_file != model.data:
        return None, [f"{model.data} is not a file that plugin {model.native} takes"]
    info = framework.describe(rest)
    external = info.metadata.get("external_data")
    known = {model.data, *(external if isinstance(external, list) else ())}
    doubts = [f"{file.name[:200]} is there as well" for file in rest if file.name not in known]
    if info.safety == "pickle":
        doubts.append(f"{model.data} is a pickle")
    return info, doubts


def _facts(model: Model, by_name: dict[str, Path]) -> dict[str, JSON]:
    facts: dict[str, JSON] = {"flavors": sorted(name[:200] for name in model.flavors)[:100]}
    for key in _FACTS:
        value = model.document.get(key)
        if isinstance(value, str) and value:
            facts[key] = value[:200]
    pyfunc = model.flavors[PYFUNC]
    facts["loader_module"] = str(pyfunc["loader_module"])
    python = pyfunc.get("python_version")
    python = python[:40] if isinstance(python, str) else read_python(by_name)
    if python:
        facts["python_version"] = python
    return facts
