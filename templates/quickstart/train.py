"""Train the iris classifier and write iris.onnx. Run it again whenever you change the model.

    pip install scikit-learn skl2onnx
    python train.py
"""

from pathlib import Path

from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

features, species = load_iris(return_X_y=True)
classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(features, species)

# zipmap off: probabilities come as one array [rows, 3] instead of a list of dictionaries
graph = to_onnx(
    classifier,
    initial_types=[("measurements", FloatTensorType([None, 4]))],
    options={"zipmap": False},
    target_opset=17,
)
target = Path(__file__).with_name("iris.onnx")
target.write_bytes(graph.SerializeToString())
print(f"wrote {target} ({target.stat().st_size} bytes), accuracy {classifier.score(features, species):.3f}")
