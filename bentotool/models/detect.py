"""Which framework a model belongs to, by bytes and structure; nothing of the model is executed.

Only plugins whose declared suffixes or magic bytes occur among the files are imported and asked.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from bentotool.errors import BentotoolError, PluginError, UsageError
from bentotool.interfaces import JSON, FrameworkDecl, Magic, Match, ModelInfo, SourceFile
from bentotool.models.trust import require_trust
from bentotool.protocols import Framework
from bentotool.sdk.wording import kind_of

if TYPE_CHECKING:
    from bentotool.plugins import Plugins

__all__ = ["describe_model", "detect_framework", "require_trust"]

_DIGEST = re.compile(r"[0-9a-f]{40,64}", re.ASCII)
_MAX_PROBED = 1000  # files whose first bytes are read; suffixes are looked at for all
_MAX_SINGLY = 20  # files that a framework is asked about one by one


def detect_framework(files: Sequence[SourceFile], plugins: Plugins, name: str | None = None) -> tuple[Framework, Match]:
    """The framework that claims ``files``.

    Args:
        files: all files of the model.
        plugins: the plugins to ask.
        name: the framework to use; only it is asked.

    Raises:
        UsageError: no framework, or more than one with the same confidence, claims the files; or ``name`` is
            unknown; or a file is of a format and damaged.
        UnsafeError: a file asks for what is refused, such as data outside the model's folder.
        PluginError: the plugin that would know failed.
    """
    if not files:
        raise UsageError("there are no files to look at", hint="give a model file, or a folder that holds one")
    if name is None:
        name = _identified(files, plugins)
    if name is not None:
        framework = plugins.framework(name)
        match = _ask(name, framework, files)
        if match is None:
            raise UsageError(
                f"{_title(files)} is not a model that framework {name!r} knows", hint=_hint(plugins, files)
            )
        return framework, match
    return _best(files, plugins)


def describe_model(
    files: Sequence[SourceFile], plugins: Plugins, name: str | None = None, *, trust: bool = False
) -> ModelInfo:
    """Detect and describe: the signature, facts, needs and safety class of a model.

    Raises, beside what :func:`detect_framework` raises, UnsafeError for a model of class ``pickle`` without ``trust``.
    """
    with _called_by_their_names(files):
        framework, match = detect_framework(files, plugins, name)
        try:
            info = framework.describe(files)
        except (BentotoolError, OSError):
            raise
        except Exception as error:  # a plugin's bug must not look like the user's
            raise _plugin_failed(match.framework, files, error) from error
    if not isinstance(info, ModelInfo):
        raise PluginError(f"framework {match.framework!r} describes {_title(files)} with {kind_of(info)}")
    facts = info.metadata
    require_trust(
        info.safety,
        _title(files),
        trust=trust,
        instead=facts.get("instead"),
        reasons=facts.get("needs_trust"),
        format=info.format,
    )
    if info.safety == "pickle":
        return info
    unused = _unused_pickles(files, match, plugins)
    return replace(info, metadata={**facts, "unused_pickles": unused}) if unused else info


@contextlib.contextmanager
def _called_by_their_names(files: Sequence[SourceFile]) -> Iterator[None]:
    """A file that lies under its digest, in a store or a hub's cache, is called in messages what the model calls it."""
    try:
        yield
    except BentotoolError as error:
        for file in files:
            if _DIGEST.fullmatch(file.path.name):
                error.message = error.message.replace(str(file.path), file.name).replace(file.path.name, file.name)
        error.args = (error.message,)
        raise


def _unused_pickles(files: Sequence[SourceFile], match: Match, plugins: Plugins) -> list[JSON]:
    """Files beside a model that runs nothing which another framework would load as a pickle: nothing here does."""
    found: list[JSON] = []
    others = [file for file in files if file.name != match.main_file]
    for file in others[:_MAX_PROBED]:
        if len(found) == _MAX_SINGLY:
            break
        for decl in _candidates([file], plugins.frameworks().values()):
            if decl.name != match.framework and file.name not in found:
                try:
                    other = plugins.framework(decl.name)
                    claim = _ask(decl.name, other, [file])
                    if claim is not None and other.describe([file]).safety == "pickle":
                        found.append(file.name)
                except Exception:  # noqa: S112 - what another framework cannot read is no news of this model
                    continue
    return found


def _best(files: Sequence[SourceFile], plugins: Plugins) -> tuple[Framework, Match]:
    claims: list[tuple[Framework, Match]] = []
    problems: list[BentotoolError] = []
    unsure: list[FrameworkDecl] = []  # such as one that sees several models of its own
    for decl in _candidates(files, plugins.frameworks().values()):
        try:
            framework = plugins.framework(decl.name)
            match = _ask(decl.name, framework, files)
        except BentotoolError as error:  # another framework may know better; told below if none does
            problems.append(error)
            unsure.append(decl)
            continue
        if match is not None:
            claims.append((framework, match))
    if not claims:
        if problems:
            raise problems[0]
        raise UsageError(f"{_title(files)} is not a model that an installed plugin knows", hint=_hint(plugins, files))
    claims.sort(key=lambda claim: claim[1].confidence, reverse=True)
    tied = sorted(match.framework for _, match in claims if match.confidence == claims[0][1].confidence)
    if len(tied) > 1:
        raise UsageError(
            f"{_title(files)} could be of framework {' or '.join(map(repr, tied))}",
            hint=f"say which: --framework {tied[0]}",
            details={"candidates": tied},
        )
    best = claims[0][1]
    if best.main_file:  # a match of the whole folder explains every file in it
        singly = [match for decl in unsure for match in _claims_of_one(decl, files, best, plugins)]
        _check_one_model(files, best, [match for _, match in claims[1:]] + singly)
    return claims[0]


def _claims_of_one(decl: FrameworkDecl, files: Sequence[SourceFile], best: Match, plugins: Plugins) -> Iterator[Match]:
    """The first file that a framework, which failed on all files together, claims when it is asked for that alone.

    Files with the best match's suffix are its parts, such as the shards of one set of tensors.
    """
    suffix = PurePosixPath(best.main_file).suffix.lower()
    likely = [file for file in files if file.name.lower().endswith(decl.suffixes)]
    for file in [file for file in likely if PurePosixPath(file.name).suffix.lower() != suffix][:_MAX_SINGLY]:
        try:
            match = _ask(decl.name, plugins.framework(decl.name), [file])
        except BentotoolError:  # damaged, or not of that framework
            continue
        if match is not None and match.main_file:
            yield match
            return


def _check_one_model(files: Sequence[SourceFile], best: Match, others: Sequence[Match]) -> None:
    """Refuse a folder in which other frameworks see models in other files than the best match's.

    A file of the same name but for its suffix is taken as the same model in another format.
    """
    stem = PurePosixPath(best.main_file).with_suffix("")
    others = [match for match in others if match.main_file]
    if all(PurePosixPath(match.main_file).with_suffix("") == stem for match in others):
        return
    named = [best, *others]
    claimed: dict[str, list[str]] = {}
    for match in named:
        claimed.setdefault(match.main_file, []).append(match.framework)
    listed = ", ".join(f"{file} ({' or '.join(sorted(names))})" for file, names in claimed.items())
    raise UsageError(
        f"{_title(files)} holds several models: {listed}",
        hint=f"import one file, choose files with --include, or say which: --framework {best.framework}",
        details={"candidates": [match.framework for match in named]},
    )


def _identified(files: Sequence[SourceFile], plugins: Plugins) -> str | None:
    answers = plugins.call("bentotool_identify_model", files=tuple(files))
    return str(answers[0]) if answers else None


def _ask(name: str, framework: Framework, files: Sequence[SourceFile]) -> Match | None:
    try:
        match = framework.detect(files)
    except (BentotoolError, OSError):
        raise
    except Exception as error:  # a plugin's bug must not look like the user's
        raise _plugin_failed(name, files, error) from error
    if match is not None and (not isinstance(match, Match) or match.framework != name):
        raise PluginError(f"framework {name!r} answers {match!r} for {_title(files)}, which is no match of its own")
    if match is not None and match.main_file and all(file.name != match.main_file for file in files):
        raise PluginError(f"framework {name!r} names a main file that {_title(files)} does not have")
    return match


def _plugin_failed(name: str, files: Sequence[SourceFile], error: Exception) -> PluginError:
    return PluginError(f"framework {name!r} failed on {_title(files)}: {type(error).__name__}: {error}")


def _candidates(files: Sequence[SourceFile], declared: Iterable[FrameworkDecl]) -> list[FrameworkDecl]:
    decls = list(declared)
    names = [file.name.lower() for file in files]
    by_suffix = [decl for decl in decls if any(name.endswith(decl.suffixes) for name in names)]
    rest = [decl for decl in decls if decl not in by_suffix and decl.magic]
    if not rest:
        return by_suffix
    heads = [_head(file) for file in files[:_MAX_PROBED]]
    return by_suffix + [decl for decl in rest if any(_shows(head, magic) for magic in decl.magic for head in heads)]


def _head(file: SourceFile) -> bytes:
    with file.path.open("rb") as stream:
        return stream.read(Magic.MAX_REACH)


def _shows(head: bytes, magic: Magic) -> bool:
    return head.startswith(magic.data, magic.offset)


def _title(files: Sequence[SourceFile]) -> str:
    """What to call the model in a message: the one file's name, or the folder's."""
    if len(files) == 1:
        return files[0].path.name
    depth = len(files[0].name.split("/"))
    parents = files[0].path.parents
    return parents[depth - 1].name if depth <= len(parents) else files[0].path.name


# What to install for a file that nothing installed knows: only ever words in a hint.
_USUAL = {
    ".onnx": "onnx", ".skops": "sklearn", ".joblib": "sklearn", ".safetensors": "huggingface", ".gguf": "huggingface",
    ".pt": "torch", ".pth": "torch", ".pt2": "torch", ".ubj": "xgboost", ".cbm": "catboost", ".keras": "tensorflow",
    ".tflite": "tensorflow", ".pb": "tensorflow", "MLmodel": "mlflow", ".pkl": "picklable",
}  # fmt: skip


def _hint(plugins: Plugins, files: Sequence[SourceFile]) -> str:
    known = plugins.frameworks()
    suffixes = {PurePosixPath(file.name.lower()).suffix or file.name for file in files}
    for suffix, framework in _USUAL.items():
        if suffix in suffixes and framework not in known:
            return f"for {suffix}: pip install bentotool-{framework}"
    if not known:
        return "no framework plugin is installed; for ONNX: pip install bentotool-onnx"
    named = ", ".join(sorted(known))
    return f"installed: {named}; for another format pip install its plugin, or name one with --framework"
