"""Ours."""

import numpy as np
from model import load

import bentotool


@bentotool.service(traffic={"timeout": float(__import__("os").environ.get("DEADLINE", "60"))})
class Predict:
    def __init__(self) -> None:
        self.model = load()

    @bentotool.api(batchable=True, max_batch_size=64)
    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.model(x)

    @bentotool.api
    def single(self, x: np.ndarray) -> np.ndarray:
        """The same without batching."""
        return self.model(x)
