"""YAML as sweep files use it: no duplicate keys, `1e-4` is a number, and errors of one line with the line's number."""

from __future__ import annotations

import re
from typing import Any

import yaml

from samref_sweep.errors import SpecError


class _Loader(yaml.SafeLoader):
    """YAML 1.1, less its silent traps."""


# PyYAML follows YAML 1.1, in which `1e-4` (no dot) is text; this is YAML 1.2's pattern.
_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(None, None, f"{key!r} is no name of a key", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"{key} is written twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def parse(text: str, place: str) -> Any:
    """The value of a YAML text that was written at `place` (a file, or an option of the command line)."""
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}:" if mark and "\n" in text.rstrip() else ""
        raise SpecError(f"{place}:{line} {error.problem or 'is no YAML'}") from None
    except yaml.YAMLError as error:
        raise SpecError(f"{place}: is no YAML: {' '.join(str(error).split())}") from None
