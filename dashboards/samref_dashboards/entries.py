"""Reads a YAML list of mappings (claims, published rows), checks their keys, and tells the line of each."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from samref_dashboards.load import ResultsError


class Entry(NamedTuple):
    """One mapping of a file."""

    place: str
    """`FILE, line N`, for a message."""
    values: dict[str, Any]


def read(file: Path, required: Collection[str], optional: Collection[str]) -> Iterator[Entry]:
    """Read the entries of a file, in its order.

    Raises ResultsError: it cannot be read, is no list of mappings, or an entry has other keys than these.
    """
    try:
        node = yaml.compose(file.read_text(encoding="utf-8"), yaml.SafeLoader)
        written = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ResultsError(f"{file}: is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(node, yaml.SequenceNode):
        raise ResultsError(f"{file}: is no list; each entry begins with a dash and has {', '.join(required)}")
    for item, values in zip(node.value, written, strict=True):
        place = f"{file}, line {item.start_mark.line + 1}"
        if not isinstance(values, dict):
            raise ResultsError(f"{place}: is no mapping; an entry has {', '.join(required)}")
        if missing := [key for key in required if values.get(key) is None]:
            raise ResultsError(f"{place}: lacks {', '.join(missing)}")
        if unknown := [str(key) for key in values if key not in (*required, *optional)]:
            known = ", ".join((*required, *optional))
            raise ResultsError(f"{place}: {', '.join(unknown)} is not known here; there are {known}")
        yield Entry(place, values)


def mapping(entry: Entry, key: str) -> dict[str, Any]:
    """Give the mapping that an entry has under `key`; empty where it has none.

    Raises ResultsError: it is something else.
    """
    value = entry.values.get(key) or {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ResultsError(f"{entry.place}: {key} is {value!r}; write {{COLUMN: VALUE}}")
    return value


def number(place: str, key: str, value: Any) -> float:
    """Give a number that stands in a file; ResultsError where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ResultsError(f"{place}: {key} is {value!r}, which is no number")
    return float(value)
