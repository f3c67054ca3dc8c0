"""APIs of files, arrays, images and data frames."""

# ruff: noqa: C901, UP007, UP045 - a list of small functions, with types as services of BentoML write them

import pathlib
from typing import Annotated, Optional, Union

FILE = "file:"
"""Starts an argument that stands for a file with the text after it."""
IMAGE = "image:"
"""Starts an argument that stands for an image of the form after it."""


def file_cases(zoo):
    case, content_type = zoo.case, zoo.validators.ContentType

    @case("3", f=FILE + "abc")
    def file(self, f: pathlib.Path) -> int:
        return f.stat().st_size

    @case("'abcabc'", f=FILE + "abc", n=2)
    def file_and_number(self, f: pathlib.Path, n: int = 1) -> str:
        return f.read_text() * min(n, 9)

    @case("[1, 2]", fs=[FILE + "a", FILE + "bb"])
    def files(self, fs: list[pathlib.Path]) -> list[int]:
        return [f.stat().st_size for f in fs]

    @case("3", f=FILE + "abc")
    def optional_file(self, f: Optional[pathlib.Path] = None) -> Optional[int]:
        return None if f is None else f.stat().st_size

    @case("None")
    def absent_file(self, f: Optional[pathlib.Path] = None) -> Optional[int]:
        return None if f is None else f.stat().st_size

    @case("'abc'", FILE + "abc")
    def root_file(self, f: pathlib.Path, /) -> str:
        return f.read_text()

    @case("3", f=FILE + "abc")
    def text_file(self, f: Annotated[pathlib.Path, content_type("text/*")]) -> int:
        return f.stat().st_size

    @case("[3, 1]", photo=FILE + "abc", others=[FILE + "d"])
    def file_and_files(self, photo: pathlib.Path, others: list[pathlib.Path]) -> list[int]:
        return [photo.stat().st_size, len(others)]

    @case("b'cba'", b=b"abc", theirs="TypeError")
    def bytes_field(self, b: bytes) -> bytes:
        return b[::-1]

    @case("file b'made'")
    def made_file(self, ctx: zoo.library.Context) -> pathlib.Path:
        path = pathlib.Path(ctx.temp_dir) / "made.txt"
        path.write_text("made")
        return path

    @case("file b'CBA'", f=FILE + "ABC")
    def file_to_file(self, f: pathlib.Path) -> pathlib.Path:
        made = f.with_suffix(".out")
        made.write_bytes(f.read_bytes()[::-1])
        return made


def array_cases(zoo):
    import numpy as np
    from numpy.typing import NDArray

    case, validators = zoo.case, zoo.validators
    shape, dtype = validators.Shape, validators.DType

    @case("array int64 [2, 4]", x=[1, 2])
    def array(self, x: np.ndarray) -> np.ndarray:
        return x * 2

    @case("array float32 [[1.0, 2.0]]", x=[[1, 2]])
    def shaped(
        self, x: Annotated[np.ndarray, shape((-1, 2)), dtype("float32")]
    ) -> Annotated[np.ndarray, dtype("float32")]:
        return x

    @case("array float32 [2.0]", x=[1.5])
    def typed_array(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.round(x)

    @case("[[1.0, 2.0]]", x=[1, 2])
    def flat_into_shape(self, x: Annotated[np.ndarray, shape((1, 2)), dtype("float64")]) -> list:
        return x.tolist()

    @case("3.0", x=[1, 2])
    def array_to_number(self, x: np.ndarray) -> float:
        return float(x.sum())

    @case("{'y': [1, 2]}", x=[1, 2])
    def array_inside(self, x: np.ndarray) -> dict:
        return {"y": x}

    @case("{'a': array([2]), 'b': array([4])}", xs={"a": [1], "b": [2]}, theirs="{'a': [2], 'b': [4]}")
    def dict_of_arrays(self, xs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {key: x * 2 for key, x in xs.items()}

    @case("3", x=[1, 2])
    def array_or_text(self, x: Union[np.ndarray, str]) -> int:
        return int(x.sum()) if isinstance(x, np.ndarray) else -1

    @case("6", xs=[[1], [2, 3]])
    def list_of_arrays(self, xs: list[np.ndarray]) -> int:
        return int(sum(x.sum() for x in xs))

    @case("2", x=[1, 2])
    def optional_array(self, x: Optional[np.ndarray] = None) -> int:
        return -1 if x is None else x.size

    @case("array int64 [1, 4]", x=[1, 2], options={"batchable": True})
    def batched_array(self, x: np.ndarray) -> np.ndarray:
        return x * x

    @case("array int64 [2, 3]", [1, 2])
    def root_array(self, x: np.ndarray, /) -> np.ndarray:
        return x + 1

    @case("{'n': 2.0}", x=1)
    def numpy_scalar(self, x: int) -> dict[str, float]:
        return {"n": np.float32(x * 2)}


def image_cases(zoo):
    import PIL.Image

    case, content_type = zoo.case, zoo.validators.ContentType

    @case("[3, 2]", i=IMAGE + "png")
    def image(self, i: PIL.Image.Image) -> list[int]:
        return list(i.size)

    @case("image PNG (2, 3)", i=IMAGE + "png")
    def image_to_image(self, i: PIL.Image.Image) -> PIL.Image.Image:
        return i.transpose(PIL.Image.Transpose.ROTATE_90)

    @case("image JPEG (3, 2)", IMAGE + "jpeg")
    def root_image(self, i: PIL.Image.Image, /) -> PIL.Image.Image:
        return i

    @case("[3, 3]", images=[IMAGE + "png", IMAGE + "jpeg"])
    def images(self, images: list[PIL.Image.Image]) -> list[int]:
        return [i.width for i in images]

    @case("3", i=IMAGE + "png")
    def optional_image(self, i: Optional[PIL.Image.Image] = None) -> Optional[int]:
        return None if i is None else i.width

    @case("image PNG (3, 2)", i=IMAGE + "png")
    def image_or_nothing(self, i: PIL.Image.Image) -> Optional[PIL.Image.Image]:
        return i

    @case("'PNG'", i=IMAGE + "png")
    def typed_image(self, i: Annotated[PIL.Image.Image, content_type("image/png")]) -> str:
        return i.format


def frame_cases(zoo):
    import pandas as pd

    case, schema = zoo.case, zoo.validators.DataframeSchema

    @case("frame {'x': [1, 2], 'y': [0, 1]}", d=[{"x": 1}, {"x": 2}])
    def frame(self, d: pd.DataFrame) -> pd.DataFrame:
        return d.assign(y=range(len(d)))

    @case("frame {'x': [2]}", d={"x": [1], "y": [5]})
    def frame_of_columns(
        self, d: Annotated[pd.DataFrame, schema(orient="columns", columns=["x"])]
    ) -> Annotated[pd.DataFrame, schema(orient="columns")]:
        return d.assign(x=2)

    @case("2", d=[{"x": 1}, {"x": 2}])
    def frame_to_number(self, d: pd.DataFrame) -> int:
        return d.size

    @case("frame {'x': [1, 2], 'n': [1, 1]}", d=[{"x": 1}, {"x": 2}], options={"batchable": True})
    def batched_frame(self, d: pd.DataFrame) -> pd.DataFrame:
        return d.assign(n=1)


def polars_cases(zoo):
    import polars as pl

    @zoo.case("frame {'x': [1]}", d=[{"x": 1}])
    def polars_frame(self, d: pl.DataFrame) -> pl.DataFrame:
        return d.head(9)


def torch_cases(zoo):
    import torch

    case, dtype = zoo.case, zoo.validators.DType

    @case("tensor torch.float32 [2.0, 4.0]", x=[1.0, 2.0])
    def tensor(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @case("tensor torch.int64 [2]", x=[2])
    def typed_tensor(self, x: Annotated[torch.Tensor, dtype("int64")]) -> Annotated[torch.Tensor, dtype("int64")]:
        return x
