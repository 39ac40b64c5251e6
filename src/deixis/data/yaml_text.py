"""YAML of users: values only, and no more of them than the text has room for."""

from __future__ import annotations

from typing import Any

import yaml

from deixis.data.reading import reading
from deixis.errors import DataError
from deixis.text import one_line

MAX_VALUES = 1_000_000
_TOO_MANY = f"aliases expand to more than {MAX_VALUES} values; write the values out"


def parse_yaml(text: str, where: str, as_text: bool = False) -> Any:
    """The values of a YAML document; no object of another kind is ever made.

    Args:
        text: the document.
        where: its file, for messages.
        as_text: leave every value the text that it is. YAML takes the words yes, 1.10 and 2020-01-01 for other things,
            which as class names they are not.

    Raises:
        DataError: the text is not YAML, its aliases expand to too much or contain themselves, or a key occurs twice.
    """
    with reading(where, "YAML"):
        loader = (yaml.BaseLoader if as_text else yaml.SafeLoader)(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _values(node, {}, where)
            return loader.construct_document(node)
        except yaml.YAMLError as error:
            raise DataError(f"{where}: cannot be read as YAML ({one_line(error)}); correct it") from error
        finally:
            loader.dispose()


def _values(node: yaml.Node, known: dict[int, int], where: str) -> int:
    """How many values a node expands to, those of its aliases included; 0 marks a node that is being counted."""
    if id(node) in known:
        if known[id(node)] == 0:
            raise DataError(f"{where}: line {node.start_mark.line + 1}: an alias contains itself; remove it")
        return known[id(node)]
    known[id(node)] = 0
    count = 1
    if isinstance(node, yaml.MappingNode):
        _check_keys(node, where)
        count += sum(_values(part, known, where) for pair in node.value for part in pair)
    elif isinstance(node, yaml.SequenceNode):
        count += sum(_values(part, known, where) for part in node.value)
    if count > MAX_VALUES:
        raise DataError(f"{where}: line {node.start_mark.line + 1}: {_TOO_MANY}")
    known[id(node)] = count
    return count


def _check_keys(node: yaml.MappingNode, where: str) -> None:
    """Keys that occur twice, of which YAML's readers take the last without a warning."""
    seen: dict[tuple[str, str], yaml.Node] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        first = seen.setdefault((key.tag, key.value), value)
        if first is not value and (not isinstance(first, yaml.ScalarNode) or first.value != value.value):
            line = key.start_mark.line + 1
            raise DataError(f"{where}: line {line}: the key {key.value[:60]!r} occurs more than once; keep one of them")
