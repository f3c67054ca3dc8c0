"""Run with `python -m pytest` in the project's folder, after `bentotool model import iris.onnx --name iris`."""

import numpy as np
from service import Iris


def test_species_of_known_flowers():
    flowers = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]], dtype=np.float32)
    assert Iris().classify(flowers).tolist() == [0, 2]
