"""Whether arrays of indices stay inside what they index: of trees, of neighbours' trees, of sparse matrices."""

from __future__ import annotations

from typing import Any


class DoubtError(Exception):
    """Something is not as scikit-learn writes it; the text says what."""


def check_tree(left: Any, right: Any, inner: Any, features: Any, n_features: int) -> int:
    """Refuse what is no tree: every inner node has two children after it that are nobody else's.

    Args:
        left, right: index of each node's children.
        inner: whether a node has any.
        features: the feature each node decides by.
        n_features: how many there are.

    Returns:
        the length of the longest path, in nodes after the first.
    """
    import numpy as np

    if not len(inner):
        raise DoubtError("a tree has no nodes")
    parents = np.flatnonzero(inner)
    left, right, chosen = left.astype(np.int64), right.astype(np.int64), features[inner].astype(np.int64)
    children = np.concatenate([left[parents], right[parents]])
    if (children <= np.tile(parents, 2)).any() or (children >= len(inner)).any():
        raise DoubtError("a child of a tree's node lies out of bounds")
    if len(children) and np.bincount(children).max() > 1:
        raise DoubtError("a tree's node has two parents")
    if (chosen < 0).any() or (chosen >= n_features).any():
        raise DoubtError("a feature of a tree's node lies out of bounds")
    depth, level = 0, np.zeros(1, np.int64)
    while (level := level[inner[level]]).size:
        depth, level = depth + 1, np.concatenate([left[level], right[level]])
    return depth


def check_neighbours(data: Any, order: Any, nodes: Any, bounds: Any, n_nodes: int) -> None:
    """Refuse a tree of neighbours whose nodes reach beyond its points.

    Args:
        data: the points, by point and feature.
        order: index of the points in the order of the nodes.
        nodes: of each node the start and end in ``order``, and whether it is a leaf.
        bounds: the room each node takes, by bound, node and feature.
        n_nodes: how many nodes it says it has.
    """
    import numpy as np

    points = len(data)
    if data.ndim != 2 or order.shape != (points,) or nodes.shape != (n_nodes,) or not n_nodes:
        raise DoubtError("its arrays have other lengths than it says")
    if bounds.ndim != 3 or not 1 <= len(bounds) <= 2 or bounds.shape[1:] != (n_nodes, data.shape[1]):
        raise DoubtError("its bounds have another shape than its data")
    start, end, numbers = nodes["idx_start"], nodes["idx_end"], np.arange(n_nodes)
    if (order < 0).any() or (order >= points).any() or (start < 0).any() or (start > end).any() or (end > points).any():
        raise DoubtError("it reaches beyond its points")
    if (2 * numbers[nodes["is_leaf"] == 0] + 2 >= n_nodes).any():
        raise DoubtError("a child of one of its nodes lies out of bounds")


def check_sparse(file: Any) -> None:
    """Refuse a sparse matrix whose indices lie outside it; only the formats whose indices scipy can check."""
    from scipy.sparse import load_npz

    matrix = load_npz(file)
    if matrix.format in ("csr", "csc"):
        matrix.check_format(full_check=True)
    elif matrix.format != "coo":  # whose indices are checked when it is made
        raise DoubtError(f"it is a sparse matrix of format {matrix.format}")


def is_below(class_: type, name: str) -> bool:
    """Whether an attribute of this name would hide a method or property of the class."""
    import inspect

    found = inspect.getattr_static(class_, name, None)
    return callable(found) or hasattr(found, "__get__")
