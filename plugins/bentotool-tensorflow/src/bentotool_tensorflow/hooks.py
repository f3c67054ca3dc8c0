"""What this plugin declares; imports nothing but bentotool's markers and records."""

from __future__ import annotations

from bentotool.hookspecs import hookimpl
from bentotool.interfaces import FrameworkDecl, Magic


@hookimpl
def bentotool_frameworks() -> list[FrameworkDecl]:
    return [
        FrameworkDecl(
            name="tensorflow",
            target="bentotool_tensorflow.framework:TensorflowFramework",
            loader="bentotool_tensorflow.loader",
            summary="TensorFlow models: SavedModel and TFLite",
            suffixes=(".pb", ".pbtxt", ".tflite"),
            magic=(Magic(4, b"TFL3"),),
            media_types=("application/vnd.tensorflow.savedmodel", "application/vnd.tensorflow.lite"),
        ),
        FrameworkDecl(
            name="keras",
            target="bentotool_tensorflow.keras_framework:KerasFramework",
            loader="bentotool_tensorflow.keras_loader",
            summary="Keras models: the .keras file of Keras 3, and HDF5",
            suffixes=(".keras", ".h5", ".hdf5"),
            magic=(Magic(0, b"PK\x03\x04"), Magic(0, b"\x89HDF\r\n\x1a\n")),
        ),
    ]
