"""YAML as people mean it: numbers by YAML 1.2's rules, no duplicate keys, errors of one line with the line's number.

PyYAML follows YAML 1.1, in which `010` is 8, `1:30` is 90, `1e-4` is text and `2026-01-02` a date. Here they are 10,
text (which whoever wants a number refuses), a number, and text. As in 1.1, `yes` and `on` are true, `no` and `off`
false, `80_000` is a number, and `<<` merges a mapping.
"""

import re
from math import inf
from typing import Any

import yaml

from samref_sweep.errors import SpecError

NOISE_DIGITS = 14
"""The digits, of a number's 17, that are more than the noise of a few additions."""
WRITTEN_DIGITS = 8
"""A person writes no more digits than so many."""


class _Loader(yaml.SafeLoader):
    """A SafeLoader with the scalars that the module describes."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {  # noqa: RUF012  (PyYAML's own attribute)
        first: [(tag, pattern) for tag, pattern in found if tag.rpartition(":")[2] in ("bool", "null", "merge")]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_NUMBERS = {
    "int": r"[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}
for _tag, _pattern in _NUMBERS.items():  # the first that fits is taken
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^({_pattern})$"), list("-+.0123456789"))


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    return int(text.replace("_", ""), 0 if text[:2] in ("0x", "0o") else 10)


def _real(loader: _Loader, node: yaml.ScalarNode) -> float | int:
    value = loader.construct_yaml_float(node)
    if abs(value) == inf and "inf" not in node.value.lower():
        raise yaml.constructor.ConstructorError(None, None, f"{node.value} is too large a number", node.start_mark)
    if "e" in node.value.lower() and value % 1 == 0 and abs(value) < 1e15:
        return int(value)  # `steps: 8e4`
    return without_noise(value)


def without_noise(value: float) -> float:
    """The short number that a computed one stands for: 0.3 for 0.30000000000000004; any other as it is."""
    short = float(f"{value:.{NOISE_DIGITS}g}")
    return short if short == float(f"{value:.{WRITTEN_DIGITS}g}") else value


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(None, None, f"{key!r} is no name of a key", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"{key} is written twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_CONSTRUCTORS = {
    "str": _Loader.construct_scalar,
    "merge": _Loader.construct_scalar,  # `<<` that is no key
    "bool": _Loader.construct_yaml_bool,
    "null": _Loader.construct_yaml_null,
    "int": _integer,
    "float": _real,
    "seq": lambda loader, node: loader.construct_sequence(node, deep=True),
    "map": _mapping,
}
_Loader.yaml_constructors = {None: _Loader.construct_undefined} | {
    f"tag:yaml.org,2002:{tag}": constructor for tag, constructor in _CONSTRUCTORS.items()
}


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    text = loader.construct_yaml_str(node)
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        problem = f"{text!a} is no text that a file can hold"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    return text


_Loader.add_constructor("tag:yaml.org,2002:str", _text)


def parse(text: str, place: str) -> Any:
    """The value of a YAML text that was written at `place` (a file, or an option of the command line)."""
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}:" if mark and "\n" in text.rstrip() else ""
        raise SpecError(f"{place}:{line} {error.problem or 'is no YAML'}") from None
    except (yaml.YAMLError, ValueError) as error:  # a number of more than 4300 digits is a ValueError
        raise SpecError(f"{place}: is no YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise SpecError(f"{place}: is nested too deeply, hundreds of levels; a sweep file needs about five") from None
