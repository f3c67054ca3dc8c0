"""Objects of the real libraries, small and random: saved, loaded and run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bentotool_huggingface import loader
from bentotool_huggingface.framework import HuggingFaceFramework

from bentotool.errors import UnsafeError
from bentotool.frameworks import namespace
from bentotool.models.api import import_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film", "is", "this"]


@pytest.fixture(autouse=True)
def _small_and_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.manual_seed(0)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS), encoding="utf-8")
    return transformers.BertTokenizer(vocab_file=str(vocabulary), vocab=str(vocabulary))


def classifier() -> Any:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(vocab_size=len(WORDS), id2label={0: "no", 1: "yes"}, **sizes)
    return transformers.BertForSequenceClassification(config).eval()


def generator() -> Any:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=len(WORDS), **sizes)).eval()


def test_a_pipeline_comes_back_as_a_pipeline(tokenizer: Any) -> None:
    pipeline = transformers.pipeline("text-classification", model=classifier(), tokenizer=tokenizer)
    stored = namespace("huggingface").save_model("film", pipeline)
    assert (stored.info["safety"], stored.info["metadata"]["task"]) == ("data", "text-classification")
    loaded = namespace("huggingface").load_model("film")
    assert isinstance(loaded, transformers.Pipeline)
    (found,), (expected,) = loaded("this film is good"), pipeline("this film is good")
    assert found["label"] == expected["label"]
    assert found["score"] == pytest.approx(expected["score"], abs=1e-5)
    model = namespace("huggingface").load_model("film", task="")
    assert type(model).__name__ == "BertForSequenceClassification"
    assert namespace("huggingface").load_model("film", model_class="AutoTokenizer")("good")["input_ids"] == [2, 6, 3]


def test_a_model_with_its_tokenizer(tokenizer: Any) -> None:
    model = classifier()
    for name, saved in (("pair", {"model": (model, tokenizer)}), ("option", {"model": model, "tokenizer": tokenizer})):
        stored = namespace("huggingface").save_model(name, **saved)
        assert (stored.info["safety"], stored.info["metadata"]["tokenizer"]) == ("data", True)
        loaded = namespace("huggingface").load_model(name)
        inputs = namespace("huggingface").load_model(name, model_class="AutoTokenizer")("bad", return_tensors="pt")
        assert torch.allclose(loaded(**inputs).logits, model(**inputs).logits, atol=1e-6)


def test_a_tokenizer_alone(tokenizer: Any) -> None:
    stored = namespace("huggingface").save_model("words", tokenizer)
    assert (stored.info["safety"], stored.info["metadata"]["library"]) == ("data", "tokenizer")
    assert namespace("huggingface").load_model("words")("a good film")["input_ids"] == [2, 5, 6, 8, 3]


def test_an_image_processor_alone() -> None:
    pytest.importorskip("PIL")
    stored = namespace("huggingface").save_model(
        "pixels", transformers.ViTImageProcessor(size={"height": 8, "width": 8})
    )
    assert stored.info["metadata"]["library"] == "tokenizer"
    assert "ImageProcessor" in type(namespace("huggingface").load_model("pixels")).__name__


def test_safetensors_are_taken_where_a_pickle_lies_beside_them(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of the hub often has both; the pickle is neither refused nor opened."""
    model = classifier()
    HuggingFaceFramework().save((model, tokenizer), tmp_path / "both")
    (tmp_path / "both" / "pytorch_model.bin").write_bytes(b"not even a pickle")
    stored = import_model(tmp_path / "both", "both")
    assert stored.info["safety"] == "data"
    monkeypatch.setattr("torch.load", None)
    loaded = namespace("huggingface").load_model("both")
    assert torch.equal(loaded.classifier.weight, model.classifier.weight)
    (tmp_path / "both" / "model.safetensors").unlink()
    with pytest.raises(UnsafeError):
        import_model(tmp_path / "both", "pickle")


def test_a_chat_template_is_rendered_in_a_sandbox_or_not_at_all(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jinja2 = pytest.importorskip("jinja2")
    monkeypatch.chdir(tmp_path)
    for number, gadget in enumerate(
        (
            "{{ cycler.__init__.__globals__.os.mkdir('canary') }}",
            "{{ ''.__class__.__mro__[1].__subclasses__() }}",
            "{% for x in ().__class__.__base__.__subclasses__() %}{{ x() }}{% endfor %}",
            "{{ messages.append(1) }}",
        )
    ):
        tokenizer.chat_template = gadget
        stored = namespace("huggingface").save_model(f"gadget{number}", (classifier(), tokenizer))
        assert stored.info["metadata"]["chat_template"] is True
        loaded = namespace("huggingface").load_model(f"gadget{number}", model_class="AutoTokenizer")
        with pytest.raises((jinja2.exceptions.SecurityError, jinja2.exceptions.UndefinedError)):
            loaded.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    assert not (tmp_path / "canary").exists()


def test_an_adapter_is_put_on_the_model_that_the_caller_gives(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = generator()
    namespace("huggingface").save_model("base", base)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], init_lora_weights=False)
    config.base_model_name_or_path = "someone/large-model"
    adapted = peft.get_peft_model(generator(), config).eval()
    adapted.base_model.model.load_state_dict(base.state_dict(), strict=False)
    stored = namespace("huggingface").save_model("adapter", adapted)
    facts = stored.info["metadata"]
    assert stored.info["safety"] == "data"
    assert {key: facts[key] for key in ("library", "adapter", "task", "rank")} == {
        "library": "peft",
        "adapter": "LORA",
        "task": "CAUSAL_LM",
        "rank": 2,
    }
    with pytest.raises(ValueError, match=r"is an adapter for .*pass base="):
        namespace("huggingface").load_model("adapter")
    inputs = torch.tensor([[1, 5, 6]])
    model = namespace("huggingface").get("base")
    for given in (model, model.path, namespace("huggingface").load_model("base")):
        loaded = namespace("huggingface").load_model("adapter", base=given)
        assert type(loaded).__name__ == "PeftModelForCausalLM"
        assert loaded(inputs).logits.shape == (1, 3, len(WORDS))
        assert "lora_A" in "".join(loaded.state_dict())


def test_an_adapter_has_the_effect_it_was_saved_with(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = generator()
    inputs = torch.tensor([[1, 5, 6]])
    namespace("huggingface").save_model("base", base)
    plain = base(inputs).logits
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(base, config).eval()
    expected = adapted(inputs).logits
    namespace("huggingface").save_model("adapter", adapted)
    loaded = namespace("huggingface").load_model("adapter", base=namespace("huggingface").get("base"))
    assert torch.allclose(loaded(inputs).logits, expected, atol=1e-6)
    assert not torch.allclose(plain, expected, atol=1e-6)
    assert torch.allclose(loaded.merge_and_unload()(inputs).logits, expected, atol=1e-5)


def test_a_sentence_transformer(tokenizer: Any, tmp_path: Path) -> None:
    sentences = pytest.importorskip("sentence_transformers")
    HuggingFaceFramework().save((classifier().bert, tokenizer), tmp_path / "bert")
    models = pytest.importorskip("sentence_transformers.models")
    word = models.Transformer(str(tmp_path / "bert"))
    model = sentences.SentenceTransformer(modules=[word, models.Pooling(16), models.Dense(16, 4)])
    expected = model.encode(["this is a film"])
    stored = namespace("huggingface").save_model("embedder", model)
    assert (stored.info["safety"], stored.info["metadata"]["dimension"]) == ("data", 4)
    loaded = namespace("huggingface").load_model("embedder", device="cpu")
    assert loaded.encode(["this is a film"]) == pytest.approx(expected, abs=1e-5)


def test_the_class_of_a_sentence_transformers_folder(tokenizer: Any, tmp_path: Path) -> None:
    sentences = pytest.importorskip("sentence_transformers")
    models = pytest.importorskip("sentence_transformers.models")
    HuggingFaceFramework().save((classifier().bert, tokenizer), tmp_path / "bert")
    model = sentences.SentenceTransformer(modules=[models.Transformer(str(tmp_path / "bert")), models.Pooling(16)])
    namespace("huggingface").save_model("embedder", model)
    load = namespace("huggingface").load_model
    assert type(load("embedder", model_class="SparseEncoder", device="cpu")).__name__ == "SparseEncoder"
    assert type(load("embedder", model_class="BertModel")).__name__ == "BertModel"
    assert "Tokenizer" in type(load("embedder", model_class="AutoTokenizer")).__name__
    assert isinstance(load("embedder", task="feature-extraction"), transformers.Pipeline)
    for unknown in ("NoSuchEncoder", "SentenceTransformerTrainer", "nothing at all"):
        with pytest.raises(loader.InvalidModelError, match="no class"):
            load("embedder", model_class=unknown)


def diffusion() -> Any:
    diffusers = pytest.importorskip("diffusers")
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    unet = diffusers.UNet2DModel(
        sample_size=8, layers_per_block=1, block_out_channels=(8, 8), norm_num_groups=2, attention_head_dim=4, **blocks
    )
    return diffusers.DDPMPipeline(unet=unet, scheduler=diffusers.DDPMScheduler())


def run(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    start = torch.Generator().manual_seed(3)
    return pipeline(batch_size=1, num_inference_steps=1, generator=start, output_type="np").images


def test_a_diffusers_pipeline_makes_the_same_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = diffusion()
    expected = run(pipeline)
    stored = namespace("huggingface").save_model("pictures", pipeline)
    facts = stored.info["metadata"]
    assert stored.info["safety"] == "data"
    assert (facts["pipeline"], facts["components"]) == ("DDPMPipeline", ["scheduler", "unet"])
    names = {path.relative_to(stored.path).as_posix() for path in stored.path.rglob("*") if path.is_file()}
    assert "unet/diffusion_pytorch_model.safetensors" in names
    monkeypatch.setattr("torch.load", None)
    loaded = namespace("huggingface").load_model("pictures")
    assert type(loaded).__name__ == "DDPMPipeline"
    assert run(loaded) == pytest.approx(expected, abs=1e-5)


def test_a_diffusers_pipeline_with_a_pickled_part_is_refused(tmp_path: Path) -> None:
    HuggingFaceFramework().save(diffusion(), tmp_path)
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    (tmp_path / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"not even a pickle")
    assert import_model(tmp_path, "both").info["safety"] == "data"
    weights.rename(tmp_path / "model.safetensors")  # in another folder, it replaces nothing
    with pytest.raises(UnsafeError):
        import_model(tmp_path, "pickle")
    with pytest.raises(loader.UnsafeModelError, match="diffusion_pytorch_model.bin is a pickle"):
        loader.load(tmp_path)


def test_a_diffusers_pipeline_with_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    HuggingFaceFramework().save(diffusion(), tmp_path / "model")
    code = "import os\nos.mkdir('canary')\n"
    (tmp_path / "model" / "unet" / "mine.py").write_text(code, encoding="utf-8")
    index = json.loads((tmp_path / "model" / "model_index.json").read_text("utf-8"))
    index["unet"] = ["mine", "Mine"]
    (tmp_path / "model" / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(UnsafeError):
        import_model(tmp_path / "model")
    for options in ({}, {"trust_remote_code": True}):
        with pytest.raises(loader.UnsafeModelError, match="mine.py is code"):
            loader.load(tmp_path / "model", **options)
    assert not (tmp_path / "canary").exists()
