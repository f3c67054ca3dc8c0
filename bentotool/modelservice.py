"""The service of ``bentotool model serve``: a model of the store, and nobody's code.

Workers import it as ``bentotool.modelservice:served``; what to serve stands in one variable of their environment, which
:func:`bentotool.modellaunch.plan_model_launch` sets. The model is loaded where services are: when a worker starts.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from bentotool.errors import UsageError

if TYPE_CHECKING:
    from bentotool.models.reader import Model
    from bentotool.predictspec import Predictor
    from bentotool.sdk.named_arrays import ArraySpec, ModelCard
    from bentotool.sdk.service import Service

__all__ = ["VARIABLE", "Asked", "make_service", "unserved"]

VARIABLE = "BENTOTOOL_SERVED_MODEL"
_API = "predict"
_LONGEST = 400
_log = logging.getLogger("bentotool.service")
_served: list[Service[Any]] = []


@dataclass(frozen=True)
class Asked:
    """What to serve, and how.

    Attributes:
        reference: with the digest, so that every worker has the same model whatever becomes of tags.
        name, version, framework, format: of the model.
        trust: a model that runs code when it is loaded may be loaded.
        max_batch_size: rows in one call at most; 1 for every request on its own.
    """

    reference: str
    name: str
    version: str
    framework: str
    format: str
    trust: bool = False
    max_batch_size: int = 100

    def to_json(self) -> str:
        """For the variable."""
        return json.dumps(asdict(self))


def __getattr__(name: str) -> Any:
    if name != "served":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if not _served:
        try:
            asked = Asked(**json.loads(os.environ[VARIABLE]))
        except (KeyError, TypeError, ValueError):
            raise UsageError(f"{VARIABLE} says of no model", hint="bentotool model serve REF sets it") from None
        _served.append(make_service(asked))
    return _served[0]


def unserved(tag: str, framework: str, why: str = "") -> UsageError:
    """What to say of a model that cannot be asked without code."""
    reason = why or f"the plugin of {framework} does not say how such a model is asked"
    return UsageError(
        f"{tag} cannot be served without code: {reason}",
        hint=f"write a service with bentotool.{framework}.load_model({tag!r}); bentotool init makes one to begin with",
    )


def make_service(asked: Asked) -> Service[Any]:
    """The service of one model."""
    from bentotool.sdk.api import api
    from bentotool.sdk.named_arrays import ModelCard
    from bentotool.sdk.service import service

    platform = "_".join(dict.fromkeys((asked.framework, asked.format)))
    card = ModelCard(asked.name, asked.version, platform, _API)

    class Served:
        def __init__(self) -> None:
            self._predictor = _load(asked, card)

        def predict(self, inputs: Any, /) -> Any:
            outputs = _run(self._predictor, inputs)
            if card.rows and not _same_rows(inputs, outputs):
                _share_no_calls(card, inputs, outputs)
            return outputs

    Served.predict.__annotations__ = {"inputs": card.input_type(), "return": card.output_type()}
    Served.predict.__doc__ = f"Ask the model {asked.name}: its inputs by name, its outputs by name."
    Served.predict = api(batchable=True, max_batch_size=asked.max_batch_size)(Served.predict)  # type: ignore[method-assign]
    made: Service[Any] = service(
        name=re.sub(r"[^A-Za-z0-9_.-]", "-", asked.name)[:63],
        labels={"version": asked.version},
        description=f"The model {asked.name}:{asked.version}, as it is.",
    )(Served)
    made.card = card
    return made


def _load(asked: Asked, card: ModelCard) -> Predictor:
    from bentotool.frameworks import namespace
    from bentotool.models.reader import resolve
    from bentotool.plugins import load_plugins

    model = resolve(asked.reference)
    plugins = load_plugins()
    decl = plugins.framework_decl(asked.framework)
    if not decl.predictor:
        raise unserved(f"{asked.name}:{asked.version}", asked.framework)
    loaded = namespace(asked.framework).load_model(model, trust=asked.trust)
    make: Any = plugins.resolve(replace(decl, target=decl.predictor))
    predictor = _made(make, loaded, model, asked)
    card.inputs = tuple(_spec(spec) for spec in predictor.inputs)
    card.outputs = tuple(_spec(spec) for spec in predictor.outputs)
    card.rows = predictor.rows
    return predictor


def _made(make: Any, loaded: Any, model: Model, asked: Asked) -> Predictor:
    try:
        predictor: Predictor = make(loaded, model.info)
    except UsageError as error:
        raise unserved(f"{asked.name}:{asked.version}", asked.framework, error.message) from error
    return predictor


def _spec(given: Any) -> ArraySpec:
    from bentotool.predictspec import ANY_AXES
    from bentotool.sdk.named_arrays import ArraySpec

    shape = tuple(size if isinstance(size, int) and size >= 0 else None for size in given.shape)
    return ArraySpec(given.name, given.dtype, None if given.shape == ANY_AXES else shape)


def _run(predictor: Predictor, inputs: Mapping[str, Any]) -> dict[str, Any]:
    from bentotool.sdk.exceptions import InvalidArgument

    try:
        given = predictor.run(inputs)
    except (ValueError, ArithmeticError) as error:
        raise InvalidArgument(f"the model refuses the input: {_reason(error)}") from error
    except RuntimeError as error:
        raise _model_failed(_reason(error)) from error
    return {spec.name: _array(given[spec.name]) for spec in predictor.outputs}


def _same_rows(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> bool:
    count = len(next(iter(inputs.values())))
    return all(array.ndim and len(array) == count for array in outputs.values())


def _share_no_calls(card: ModelCard, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
    """The model does not give one row for each: nobody could say whose is whose. The batcher asks again, one by one."""
    card.rows = False
    count = len(next(iter(inputs.values())))
    found = ", ".join(f"{name} of shape {array.shape}" for name, array in outputs.items())
    _log.warning("%s gives %s for %d rows: requests share no calls of it from now on", card.name, found, count)


def _reason(error: Exception) -> str:
    """What an error says, in one line that is not too long."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text if len(text) <= _LONGEST else text[:_LONGEST].rpartition(" ")[0] + " …"


def _model_failed(reason: str) -> Exception:
    """The model itself failed: the log says why, in one line, and the caller is told no more than that it did."""
    from bentotool.sdk.exceptions import InternalServerError

    class ModelFailed(InternalServerError):
        def to_dict(self) -> dict[str, object]:
            return InternalServerError("the model failed; the server's log says why").to_dict()

    return ModelFailed(f"the model failed: {reason}")


def _array(value: Any) -> Any:
    """An array of numbers, or of texts as objects, whatever a framework calls one."""
    import numpy as np

    array = np.asarray(value)
    if array.dtype.kind not in "OSU":
        return array
    return np.array([_text(item) for item in array.ravel().tolist()], dtype=object).reshape(array.shape)


def _text(item: Any) -> str:
    return item.decode(errors="backslashreplace") if isinstance(item, bytes) else str(item)
