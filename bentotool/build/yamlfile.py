"""Reading YAML of a project as plain data, with the line in every complaint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bentotool.errors import ConfigError

if TYPE_CHECKING:
    import yaml

__all__ = ["parse_yaml"]

_NODE_LIMIT = 100_000


def parse_yaml(content: str, name: str) -> object:
    """A YAML document as plain data: no tags, no key twice, no aliases that multiply.

    Args:
        name: of the file, for messages.

    Raises:
        ConfigError: naming the file and line.
    """
    import yaml

    try:
        _check_nodes(yaml.compose(content, Loader=yaml.SafeLoader), name)
        value: object = yaml.safe_load(content)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{name}{line}: not YAML: {_one_line(error.problem or error.context or 'damaged')}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{name}: not YAML: {_one_line(error)}") from None
    return value


def _children(node: yaml.Node, name: str) -> list[yaml.Node]:
    """What a node holds; a key that stands twice is refused, as YAML would silently keep the last one."""
    import yaml

    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if not isinstance(node, yaml.MappingNode):
        return []
    seen: set[str] = set()
    for label, _ in node.value:
        if isinstance(label, yaml.ScalarNode):
            if label.value in seen:
                raise ConfigError(f"{name}, line {label.start_mark.line + 1}: key {label.value[:80]!r} stands twice")
            seen.add(label.value)
    return [part for pair in node.value for part in pair]


def _check_nodes(root: yaml.Node | None, name: str) -> None:
    """Refuse keys given twice, and aliases that contain themselves or multiply into a huge document."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            if not sizes[id(node)]:
                raise ConfigError(f"{name}, line {node.start_mark.line + 1}: a value that contains itself")
            return sizes[id(node)]
        sizes[id(node)] = 0
        total = 1 + sum(size(child) for child in _children(node, name))
        if total > _NODE_LIMIT:
            raise ConfigError(f"{name}: more than {_NODE_LIMIT} values")
        sizes[id(node)] = total
        return total

    if root is not None:
        size(root)


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:200]
