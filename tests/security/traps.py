"""A folder of everything that runs when somebody is careless. Loaded by path, as data; run as a program by nobody.

Each trap makes a file beside :func:`canary`, named after itself.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

NOTEBOOK = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}}


def _python(canary: Path, name: str) -> str:
    return f"import pathlib\npathlib.Path({str(canary)!r}).with_name('canary-{name}').touch()\n"


def _pickle(canary: Path, name: str) -> bytes:
    """Protocol 0: calls ``os.mkdir`` with a path, as ``__reduce__`` would have it."""
    return f"cos\nmkdir\n(V{canary.with_name(f'canary-{name}')}\ntR.".encode()


def make_traps(folder: Path, canary: Path) -> None:
    """Fill a folder with traps.

    Args:
        canary: a path in an existing, empty folder; whatever is sprung appears there.
    """
    folder.mkdir(parents=True)
    texts = {
        f"{name}.py": _python(canary, name)
        for name in (
            "sitecustomize", "usercustomize", "conftest", "setup", "__init__", "__main__", "hubconf", "json", "rich",
            "typer", "bentotool", "numpy", "onnx", "modeling_evil", "evil_plugin", "handler", "custom_transformer",
        )
    }  # fmt: skip
    texts["evil.pth"] = f"import pathlib; pathlib.Path({str(canary)!r}).with_name('canary-pth').touch()\n"
    texts["evil-1.0.dist-info/METADATA"] = "Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n"
    texts["evil-1.0.dist-info/entry_points.txt"] = "[bentotool]\nevil = evil_plugin\n[console_scripts]\ngit = evil:x\n"
    texts["pyproject.toml"] = "[build-system]\nrequires=[]\nbackend-path=['.']\nbuild-backend='modeling_evil'\n"
    texts["Makefile"] = f"all:\n\ttouch {canary}-make\n"
    texts[".envrc"] = texts["run.sh"] = f"touch {canary}-sh\n"
    texts["evil.yaml"] = f"!!python/object/apply:os.mkdir ['{canary}-yaml']\n"
    code = {"cell_type": "code", "source": [_python(canary, "notebook")], "outputs": [], "metadata": {}}
    gadget = "{{ cycler.__init__.__globals__.os.mkdir('" + str(canary) + "-jinja') }}"
    documents = {
        "notebook.ipynb": {**NOTEBOOK, "cells": [{**code, "execution_count": None}]},
        "tokenizer_config.json": {"chat_template": gadget, "auto_map": {"AutoTokenizer": ["modeling_evil.T", None]}},
        "nested.json": {"a": [{"trust_remote_code": True, "_attn_implementation_internal": "evil/kernel"}]},
    }
    texts |= {name: json.dumps(document) for name, document in documents.items()}
    for name, text in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    for name in ("evil.pkl", "evil.joblib", "evil.pt", "evil.npy", "evil.bin", "evil.cloudpickle"):
        (folder / name).write_bytes(_pickle(canary, name))
    with zipfile.ZipFile(folder / "zipped.pt", "w") as archive:
        archive.writestr("archive/data.pkl", _pickle(canary, "zipped"))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/code/evil.py", _python(canary, "torchscript"))


CONFIGS = {
    "auto_map": {"model_type": "bert", "auto_map": {"AutoModel": "modeling_evil.Model"}},
    "nested": {"model_type": "x", "text_config": {"model_type": "bert", "auto_map": {"AutoModel": "modeling_evil.M"}}},
    "remote": {"model_type": "bert", "trust_remote_code": True},
    "attention": {"model_type": "bert", "_attn_implementation_internal": "evil/kernel"},
}
"""``config.json`` of model folders that ask for code of their own."""
