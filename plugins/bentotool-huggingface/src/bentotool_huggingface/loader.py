"""Loads Hugging Face models, offline and without code from the model; what needs such code only with ``trust=True``.

This file travels in a Bento: standard library, and the libraries that load the model.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

MAX_JSON = 16 * 1024 * 1024  # bytes of a configuration or an index
TASK_FILE = "pipeline_task.json"  # written beside a pipeline that was saved; no library knows it
_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt")
_INDEX = ".safetensors.index.json"
_PICKLES = (*_WEIGHTS, ".pkl", ".pickle", ".joblib")
_CODE_KEYS = ("auto_map", "trust_remote_code", "custom_pipelines", "_attn_implementation_internal")
# The name of a repository in place of an implementation's name makes transformers fetch and run a kernel from it.
_KERNEL_KEYS = ("_attn_implementation", "attn_implementation", "_experts_implementation", "experts_implementation")
_SENTENCE_MODULE = re.compile(r"sentence_transformers(\.[a-z][a-z0-9_]*)*\.[A-Z]\w*")
_ACTIVATION_KEYS = ("activation_function", "activation_fn", "sbert_ce_default_activation_function")
_NN = re.compile(r"torch\.nn\.(modules\.)?([a-z]+\.)?[A-Z]\w*")
_TASK = re.compile(r"[a-z][a-z0-9-]{1,60}")
# What an adapter is put on, by what it was trained for.
_ADAPTED = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "FEATURE_EXTRACTION": "AutoModel",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
}
_DIFFUSERS_LIBRARIES = frozenset(
    {
        *("diffusers", "transformers", "onnxruntime.training", "audioldm2", "deepfloyd_if", "kandinsky", "wuerstchen"),
        *("latent_diffusion", "paint_by_example", "stable_cascade", "stable_diffusion", "stable_diffusion_safe"),
        *("stable_diffusion_xl", "stable_video_diffusion", "unclip", "versatile_diffusion"),
    }
)


class InvalidModelError(ValueError):
    """The files are not a model, or a damaged one."""


class UnsafeModelError(ValueError):
    """Loading would run code that came with the model."""

    unsafe = True


def load(
    path: str | Path,
    *,
    trust: bool = False,
    task: str | None = None,
    model_class: str | None = None,
    base: Any = None,
    **options: Any,
) -> Any:
    """The object that the model's own library makes of it.

    Args:
        path: the model's folder, or its file.
        trust: allows code that came with the model, and pickled weights; without it, what needs them is refused.
        task: for a transformers folder, gives a ``pipeline`` of this task instead of the model; default: what was
            saved. ``""`` gives the model of a saved pipeline.
        model_class: for a transformers folder, the class's name, e.g. ``AutoModelForCausalLM`` or ``AutoTokenizer``;
            default: the class that the configuration names if transformers has it, else ``AutoModel``. For a
            sentence-transformers folder also a class of that library, e.g. ``SparseEncoder``.
        base: for an adapter, what it is put on: a folder, something with a ``path`` (a model of the store), or a model.
        options: for the library's function that loads. For GGUF, ``backend``: ``"xllamacpp"`` (default; options are
            those of its ``CommonParams``) or ``"llama_cpp"`` (those of its ``Llama``).

    Raises UnsafeModelError for what needs trust, InvalidModelError where there is no model.
    """
    path = Path(path)
    if path.is_file() and _starts_with(path, b"GGUF"):
        return _load_gguf(path, **options)
    if path.name.endswith((".safetensors", _INDEX)) or (path.is_file() and _starts_with(path, b'{"', 8)):
        return _load_tensors(path, **options)
    if path.suffix.lower() == ".gguf":
        return _load_gguf(path, **options)
    if not path.is_dir():
        raise InvalidModelError(f"{path.name} is neither a model's folder nor a safetensors or GGUF file")
    files = {item.relative_to(path).as_posix(): item for item in path.rglob("*") if item.is_file()}
    code, pickles = code_reasons(files), pickled_weights(files)
    if options.pop("trust_remote_code", False):
        code = [*code, "the caller passes trust_remote_code"]
    if (code or pickles) and trust is not True:
        reasons = "; ".join([*code, *(f"{name} is a pickle" for name in pickles)])
        raise UnsafeModelError(f"{path.name} runs code when it is loaded: {reasons}; trust=True loads it")
    if is_adapter(files):
        return _load_adapter(path, base, model_class, trust=trust, **options)
    options |= {"trust_remote_code": bool(code), "local_files_only": True}
    return _load_folder(path, files, task, model_class, options, safetensors=not pickles)


def _load_folder(
    path: Path,
    files: Mapping[str, Path],
    task: str | None,
    model_class: str | None,
    options: dict[str, Any],
    *,
    safetensors: bool,
) -> Any:
    if "modules.json" in files and not task and (kind := _sentence_class(model_class)):
        return kind(str(path), **options)
    if "model_index.json" in files:
        if task or model_class:
            raise InvalidModelError(f"{path.name} is a diffusers pipeline: task and model_class are for transformers")
        return _load_diffusers(path, options, safetensors=safetensors)
    return _load_transformers(path, files, task, model_class, options, safetensors=safetensors)


def is_adapter(files: Mapping[str, Path]) -> bool:
    """Whether a folder holds what PEFT puts on another model."""
    return "adapter_config.json" in files and any(name.startswith("adapter_model.") for name in files)


def _load_adapter(path: Path, base: Any, model_class: str | None, *, trust: bool, **options: Any) -> Any:
    """The base is what the caller says: a name or path in the adapter is never followed."""
    config = read_json(path / "adapter_config.json")
    if not isinstance(config, dict):
        raise InvalidModelError("adapter_config.json is not an object")
    if base is None:
        named = str(config.get("base_model_name_or_path"))
        raise InvalidModelError(f"{path.name} is an adapter for {named:.100}: pass base=, the folder of that model")
    folder = getattr(base, "path", base)
    if isinstance(folder, str | Path):
        adapted = model_class or _ADAPTED.get(str(config.get("task_type")))
        base = load(folder, trust=trust, task="", model_class=adapted)
    from peft import PeftModel

    return PeftModel.from_pretrained(base, str(path), **options)


def _load_transformers(
    path: Path,
    files: Mapping[str, Path],
    task: str | None,
    model_class: str | None,
    options: dict[str, Any],
    *,
    safetensors: bool,
) -> Any:
    import transformers

    keywords = dict(options)
    if task is None and model_class is None:
        task = saved_task(files)
    if task:
        if safetensors:
            keywords["model_kwargs"] = {"use_safetensors": True, **keywords.get("model_kwargs", {})}
        return transformers.pipeline(task, model=str(path), **keywords)
    if model_class is None and "config.json" not in files:
        model_class = "AutoTokenizer" if "tokenizer_config.json" in files else "AutoProcessor"
    if model_class is None:
        named = read_json(files["config.json"]).get("architectures")
        first = named[0] if isinstance(named, list) and named else None
        known = isinstance(first, str) and first.isidentifier() and hasattr(transformers, first)
        model_class = str(first) if known else "AutoModel"
    if not model_class.isidentifier() or not hasattr(getattr(transformers, model_class, None), "from_pretrained"):
        raise InvalidModelError(f"transformers has no class {model_class!r} that loads a model")
    if safetensors and "Tokenizer" not in model_class and "Processor" not in model_class:
        keywords.setdefault("use_safetensors", True)
    if not model_class.startswith("Auto"):  # a class of transformers itself takes no code from a model
        keywords.pop("trust_remote_code")
    return getattr(transformers, model_class).from_pretrained(str(path), **keywords)


def _sentence_class(name: str | None) -> Any:
    """A class of sentence-transformers; None where the name is one of transformers' own."""
    import sentence_transformers

    name = name or "SentenceTransformer"
    return getattr(sentence_transformers, name, None) if name.endswith(("Transformer", "Encoder")) else None


def _load_diffusers(path: Path, options: dict[str, Any], *, safetensors: bool) -> Any:
    from diffusers import DiffusionPipeline

    if safetensors:
        options.setdefault("use_safetensors", True)
    return DiffusionPipeline.from_pretrained(str(path), **options)


def _load_gguf(path: Path, *, backend: str = "xllamacpp", **options: Any) -> Any:
    if backend == "llama_cpp":
        from llama_cpp import Llama

        return Llama(model_path=str(path), **{"verbose": False, **options})
    if backend != "xllamacpp":
        raise ValueError(f"backend {backend!r} is neither 'xllamacpp' nor 'llama_cpp'")
    from xllamacpp import CommonParams, Server

    parameters = CommonParams()
    parameters.model.path = str(path)
    # the engine also listens on a port of this machine: with a key that nobody has, and without its pages
    closed = {"api_keys": [secrets.token_urlsafe(32)], "ui": False, "endpoint_slots": False, "offline": True}
    for name, value in {"verbosity": -1, **options, **closed}.items():
        if name.startswith("_") or not hasattr(parameters, name):
            raise ValueError(f"xllamacpp has no parameter {name!r}")
        setattr(parameters, name, value)
    return Server(parameters)


def _load_tensors(path: Path, *, backend: str = "numpy", **options: Any) -> dict[str, Any]:
    """Tensors by name; ``backend`` is ``numpy`` or ``torch``, and torch takes a ``device``."""
    if backend == "torch":
        from safetensors.torch import load_file
    elif backend == "numpy":
        from safetensors.numpy import load_file
    else:
        raise ValueError(f"backend {backend!r} is neither 'numpy' nor 'torch'")
    if not path.name.endswith(_INDEX):
        return dict(load_file(str(path), **options))
    tensors: dict[str, Any] = {}
    for name in sorted(set(weight_map(path).values())):
        tensors |= load_file(str(path.parent / name), **options)
    return tensors


def _starts_with(path: Path, magic: bytes, at: int = 0) -> bool:
    with path.open("rb") as file:
        return file.read(at + len(magic))[at:] == magic


def read_json(path: Path) -> Any:
    """A configuration; InvalidModelError where it is no JSON or too large."""
    with path.open("rb") as file:
        text = file.read(MAX_JSON + 1)
    if len(text) > MAX_JSON:
        raise InvalidModelError(f"{path.name} is larger than {MAX_JSON} bytes")
    try:
        return json.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InvalidModelError(f"{path.name} is not JSON: {str(error)[:200]}") from None


def contained(name: object) -> bool:
    """Whether a path that a model writes down stays in the model's folder, on every system."""
    if not isinstance(name, str) or not name or name.startswith("/"):
        return False
    return ".." not in name.split("/") and not any(character in name for character in ("\\", ":", "\0"))


def weight_map(path: Path) -> dict[str, str]:
    """Which shard holds which tensor, from an index; InvalidModelError where it points elsewhere."""
    document = read_json(path)
    table = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(table, dict) or not table:
        raise InvalidModelError(f"{path.name} has no weight_map")
    for tensor, name in table.items():
        if not contained(name) or not name.endswith(".safetensors"):
            raise InvalidModelError(f"{path.name} keeps {tensor!r:.80} in {name!r:.80}, which is no shard beside it")
    return dict(table)


def saved_task(files: Mapping[str, Path]) -> str | None:
    """Of the pipeline that was saved; None where a model was."""
    document = read_json(files[TASK_FILE]) if TASK_FILE in files else None
    task = document.get("task") if isinstance(document, dict) else None
    return task if isinstance(task, str) and _TASK.fullmatch(task) else None


def pickled_weights(files: Mapping[str, Path]) -> list[str]:
    """Pickles that would be loaded: not weights that are there as safetensors too, which are taken in their place."""
    return sorted(name for name in files if _is_pickle(name) and not _is_replaced(name, files))


def _is_pickle(name: str) -> bool:
    base = name.rpartition("/")[2]
    # optimizer.pt, scheduler.pt and training_args.bin are left by training, and no library loads them
    return base.lower().endswith(_PICKLES) and not base.startswith(("optim", "sched", "train"))


def _is_replaced(name: str, files: Mapping[str, Path]) -> bool:
    folder, _, base = name.rpartition("/")
    if not base.lower().endswith(_WEIGHTS):
        return False
    beside = {other.rpartition("/")[2] for other in files if other.rpartition("/")[0] == folder}
    # these libraries look for one name, then for the pickle; the others are told to take safetensors or fail
    if base.startswith("adapter_model."):
        return "adapter_model.safetensors" in beside
    if "modules.json" in files:
        return not beside.isdisjoint(("model.safetensors", "model.safetensors.index.json"))
    return any(other.endswith(".safetensors") for other in beside)


def code_reasons(files: Mapping[str, Path]) -> list[str]:
    """Why loading these files would run code of the model, or code that it picks among what is installed."""
    reasons = []
    for name, path in sorted(files.items()):
        base = name.rpartition("/")[2].lower()
        if base.endswith(".json") and ("config" in base or base == "model_index.json"):
            document = read_json(path)
            reasons += [f"{name} sets {key}" for key in _code_keys(document)]
            reasons += [f"{name} imports {dotted:.80}" for dotted in _imported(document)]
            if base == "adapter_config.json":
                reasons += [f"{name} {reason}" for reason in _adapter_reasons(document, whole=is_adapter(files))]
        if name.startswith("custom_generate/") and name.endswith(".py"):
            reasons.append(f"{name} replaces generate()")
    if "modules.json" in files:
        reasons += _sentence_reasons(read_json(files["modules.json"]))
    if "model_index.json" in files:
        reasons += [f"{name} is code of the pipeline" for name in sorted(files) if name.endswith(".py")]
        for name in sorted(files):  # a pipeline may be a component of another
            if name.rpartition("/")[2] == "model_index.json":
                reasons += _diffusers_reasons(read_json(files[name]), name)
    return reasons


def _code_keys(document: object) -> list[str]:
    """Keys, at any depth, with which a configuration asks for code."""
    found = set()
    for table in _tables(document):
        found |= {key for key in _CODE_KEYS if table.get(key) not in (None, False)}
        for key in _KERNEL_KEYS:
            if "/" in json.dumps(table.get(key)):  # a name, or one for each part of the model
                found.add(key)
    return sorted(found)


def _adapter_reasons(document: object, *, whole: bool) -> list[str]:
    """PEFT imports what a field names, and reads pickles and further adapters from paths."""
    reasons = [] if whole else ["makes transformers load another model"]
    for table in _tables(document):
        if table.get("megatron_config") or table.get("megatron_core") not in (None, "megatron.core"):
            reasons.append("imports a megatron core")
        if str(table.get("peft_type")).upper() == "XLORA":
            reasons.append("loads further adapters")
        named = (key for key, value in table.items() if value and key.endswith(("_file", "_path", "_dir")))
        reasons += [f"reads {key}" for key in named if not key.endswith("_name_or_path")]
    return reasons


def _imported(document: object) -> list[str]:
    """Dotted names that sentence-transformers imports, other than activation functions and modules of the field."""
    found = set()
    for table in _tables(document):
        values = [table.get(key) for key in _ACTIVATION_KEYS]
        found |= {value for value in values if isinstance(value, str) and "." in value and not _NN.fullmatch(value)}
        types = table.get("types")  # of a router: class by the name of its folder
        for value in types.values() if isinstance(types, dict) else ():
            if isinstance(value, str) and "." in value and not _SENTENCE_MODULE.fullmatch(value):
                found.add(value)
    return sorted(found)


def _tables(document: object) -> Iterator[dict[str, Any]]:
    level: Sequence[object] = [document]
    while level:
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                yield item
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        level = inner


def _sentence_reasons(document: object) -> list[str]:
    """A module's type is a dotted name that sentence-transformers imports, whatever it is."""
    if not isinstance(document, list):
        raise InvalidModelError("modules.json is not a list")
    reasons = []
    for module in document:
        if not isinstance(module, dict) or not isinstance(module.get("type"), str):
            raise InvalidModelError("modules.json has a module without a type")
        if module.get("path") and not contained(module["path"]):
            raise InvalidModelError(f"modules.json keeps a module in {module['path']!r:.80}, outside the model")
        if not _SENTENCE_MODULE.fullmatch(module["type"]):
            reasons.append(f"modules.json imports {module['type']:.80}")
    return reasons


def _diffusers_reasons(document: object, where: str) -> list[str]:
    """A component is a library, which diffusers imports, and a class of it."""
    if not isinstance(document, dict) or "_class_name" not in document:
        raise InvalidModelError(f"{where} names no pipeline class")
    reasons = []
    if not isinstance(document["_class_name"], str):
        reasons.append(f"{where} takes its pipeline class from a module of its own")
    for name, component in document.items():
        if not isinstance(component, list) or name.startswith("_"):
            continue
        library = component[0] if len(component) == 2 else None
        if library is not None and not (isinstance(library, str) and library in _DIFFUSERS_LIBRARIES):
            reasons.append(f"{where} imports {repr(library)[:80]} for {name!r:.40}")
    return reasons
