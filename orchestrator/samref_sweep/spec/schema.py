"""The sweep file's JSON Schema, with which editors complete and check it. Made from the same models that read it."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from samref.config import TrialConfig
from samref_sweep.spec.file import SweepFile
from samref_sweep.spec.settings import part_of


def json_schema() -> dict[str, Any]:
    """The schema (draft 2020-12); a file may have `# yaml-language-server: $schema=FILE` as its first line."""
    schema = SweepFile.model_json_schema()
    trial = TrialConfig.model_json_schema()
    definitions: dict[str, Any] = {**schema["$defs"], **trial.pop("$defs")}
    definitions["TrialConfig"] = trial
    properties = schema["properties"]
    for key in ("trial", "parameters", "exclude", "resources"):  # `parameters:` with nothing below it
        properties[key] = {"anyOf": [properties[key], {"type": "null"}]}
    properties["trial"]["anyOf"][0] = {"$ref": "#/$defs/TrialConfig"}
    # `train` is null unless it is given, so it is a part of which all keys have defaults.
    axis = definitions["Parameters"].pop("additionalProperties")
    settings = {name: {"description": description} for name, description in _settings(TrialConfig, "")}
    definitions["Parameters"]["properties"] |= {name: axis | text for name, text in settings.items()}
    definitions["Parameters"]["patternProperties"] = {r"^train(\.init){2,}(\.[a-z_]+)?$": axis}
    definitions["Parameters"]["additionalProperties"] = False
    some = {"type": "object", "properties": settings, "patternProperties": {r"^train(\.init){2,}(\.[a-z_]+)?$": {}}}
    definitions["Settings"] = some | {"additionalProperties": False}
    for holder, key in (
        (properties["exclude"]["anyOf"][0], "items"),
        (definitions["Parameters"]["properties"]["zip"], "items"),
    ):
        holder[key] = {"$ref": "#/$defs/Settings"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "samref-sweep",
        **schema,
        "$defs": definitions,
    }


def _settings(part: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    """Every dotted setting and what it means, one `train.init` deep."""
    for name, field in part.model_fields.items():
        yield f"{prefix}{name}", field.description or ""
        inner = part_of(field)
        if inner is not None and not prefix.startswith("train.init"):
            yield from _settings(inner, f"{prefix}{name}.")
