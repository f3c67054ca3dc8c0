"""A model of the store served with no code, in this process: what a plugin's predictor is tested with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bentotool.testing.client import TestClient
from bentotool.testing.contract import ContractError

__all__ = ["check_served"]

_OK = 200


def check_served(reference: str, inputs: Mapping[str, Any], *, trust: bool = False) -> dict[str, Any]:
    """Ask a model as ``bentotool model serve`` serves it, in JSON and by the Open Inference Protocol.

    Args:
        reference: of a model in the store.
        inputs: numpy arrays by the names of its inputs.
        trust: it runs code when it is loaded.

    Returns:
        its outputs by name, as nested lists.

    Raises:
        ContractError: it does not answer, says of outputs what they are not, or the two answers differ.
        BentotoolError: what the command would say.
    """
    from bentotool.modellaunch import plan_model_launch
    from bentotool.models.store import ModelStore
    from bentotool.modelservice import VARIABLE, Asked, make_service
    from bentotool.oci.layout import Layout
    from bentotool.paths import default_store
    from bentotool.plugins import load_plugins
    from bentotool.sdk.inference_protocol import datatype_of

    launch = plan_model_launch(reference, ModelStore(Layout(default_store())), load_plugins(), trust=trust)
    asked = Asked(**json.loads(launch.environment[VARIABLE]))
    tensors = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": datatype_of("str" if array.dtype.kind in "OU" else array.dtype.name),
            "data": array.ravel().tolist(),
        }
        for name, array in inputs.items()
    ]
    base = f"/v2/models/{asked.name}"
    with TestClient(make_service(asked)) as client:
        own = client.post("/predict", json={name: array.tolist() for name, array in inputs.items()})
        theirs = client.post(f"{base}/infer", json={"inputs": tensors})
        told = client.get(base).json()
    for answer in (own, theirs):
        if answer.status_code != _OK:
            raise ContractError(f"{asked.name} answers {answer.status_code}: {answer.text}")
    outputs = {output["name"]: output for output in theirs.json()["outputs"]}
    for spec in told["outputs"]:
        found = outputs.get(spec["name"])
        fits = found is not None and (spec["shape"] == [-1] or _fits(found["shape"], spec["shape"]))
        if not fits:
            raise ContractError(f"{asked.name} says of output {spec['name']!r} {spec['shape']}, and gives {found}")
    flat = {name: output["data"] for name, output in outputs.items()}
    result: dict[str, Any] = own.json()
    if {name: _flat(value) for name, value in result.items()} != flat:
        raise ContractError(f"{asked.name} answers {result} in JSON, and {flat} by the protocol")
    return result


def _fits(shape: list[int], told: list[int]) -> bool:
    return len(shape) == len(told) and all(wanted in (-1, size) for size, wanted in zip(shape, told, strict=True))


def _flat(value: Any) -> list[Any]:
    return [inner for item in value for inner in _flat(item)] if isinstance(value, list) else [value]
