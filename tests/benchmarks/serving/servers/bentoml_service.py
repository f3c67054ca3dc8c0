"""BentoML; TUNED=1 with the latency it is to keep."""

import os

import bentoml
import numpy as np
from model import load

TUNED = {"max_latency_ms": 50} if os.environ.get("TUNED") else {}


@bentoml.service(workers=1, traffic={"timeout": 60}, metrics={"enabled": False})
class Predict:
    def __init__(self) -> None:
        self.model = load()

    @bentoml.api(batchable=True, max_batch_size=64, **TUNED)
    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.model(x)
