"""Which species of iris has these measurements?"""

import numpy as np

import bentotool


@bentotool.service(traffic={"timeout": 10})
class Iris:
    """Iris classifier: 0 is setosa, 1 versicolor, 2 virginica."""

    model = bentotool.models.BentoModel("iris:latest")

    def __init__(self) -> None:
        self.session = bentotool.onnx.load_model(self.model)

    @bentotool.api(batchable=True, max_batch_size=64)
    def classify(self, measurements: np.ndarray) -> np.ndarray:
        """Species of each row: sepal length, sepal width, petal length, petal width, in centimetres."""
        (label,) = self.session.run(["label"], {"measurements": measurements.astype(np.float32)})
        return label
