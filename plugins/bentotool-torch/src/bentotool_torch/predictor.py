"""How a PyTorch program is asked; see :class:`bentotool.predictspec.MakePredictor`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bentotool.errors import UsageError
from bentotool.interfaces import TensorSpec
from bentotool.predictspec import ANY_AXES, Predictor

__all__ = ["predictor"]


def predictor(model: Any, _info: Mapping[str, Any]) -> Predictor:
    """A ``ScriptModule`` by the names of its ``forward``, whose inputs and outputs are all tensors.

    Nothing says what its axes are, so that requests share no calls. Fractions get the type of its weights.

    Raises:
        UsageError: it is something else, such as a state dict, or takes or gives what is no tensor.
    """
    import torch

    if not isinstance(model, torch.jit.ScriptModule):
        raise UsageError("only TorchScript says what it takes; weights alone want the code of their model")
    schema = model.forward.schema
    inputs = [argument for argument in schema.arguments[1:] if not argument.has_default_value()]
    if not inputs or any(argument.type.kind() != "TensorType" for argument in inputs):
        raise UsageError("its forward takes what is no tensor")
    names, outputs = [argument.name for argument in inputs], _outputs(schema)
    weights = next((each for each in model.parameters() if each.is_floating_point()), None)
    model.eval()

    def run(arrays: Mapping[str, Any]) -> dict[str, Any]:
        given = [_tensor(arrays[name], weights) for name in names]
        try:
            with torch.inference_mode():
                found = model(*given)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:  # a shape that does not fit, mostly; torch has no word of its own for that
            raise ValueError(_last_line(error)) from error
        several = found if isinstance(found, tuple) else (found,)
        return {name: _array(each) for name, each in zip(outputs, several, strict=True)}

    specs = tuple(TensorSpec(name, "any", ANY_AXES) for name in names)
    return Predictor(specs, tuple(TensorSpec(name, "any", ANY_AXES) for name in outputs), run, rows=False)


def _outputs(schema: Any) -> list[str]:
    kind = schema.returns[0].type
    if kind.kind() == "TensorType":
        return ["output"]
    if kind.kind() == "TupleType" and all(each.kind() == "TensorType" for each in kind.elements()):
        return [f"output_{number}" for number in range(len(kind.elements()))]
    raise UsageError("its forward gives what is no tensor")


def _tensor(array: Any, weights: Any) -> Any:
    import torch

    tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
    if weights is None:
        return tensor
    return tensor.to(weights.device, weights.dtype if tensor.is_floating_point() else None)


def _array(tensor: Any) -> Any:
    import torch

    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1].removeprefix("RuntimeError: ")
