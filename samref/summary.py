"""What a finished stage says of itself: the content of its `summary.json`."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Self

from samref.stage import Stage

FILE = "summary.json"


@dataclass(frozen=True)
class Summary:
    """What a stage measured, and what it took to run it."""

    id: str
    """The stage's id when it ran; another VERSION of the code would give it another."""
    stage: Stage
    metrics: Mapping[str, float | int]
    """Name → what was measured; `samref.measures` explains the names. What was not measured is left out."""
    device_seconds: float
    """Wall time × processes; evaluations that ran in one go share it evenly."""
    device: str
    """`cpu`, `cuda` or `cuda:1`, say."""
    hardware: str
    """The device's name as a person would say it."""
    versions: Mapping[str, str]
    """Package → version."""
    started: str
    """Time in UTC, in ISO's format."""
    peak_memory_gb: float | None = None
    """Most memory of its process in 10⁹ bytes; None where an older version ran it."""
    device_peak_memory_gb: float | None = None
    """Most memory on its GPU in 10⁹ bytes; None on a CPU."""
    code: Mapping[str, str] | None = None
    """Module → digest of the source that ran it (`samref.source`); None where an older version ran it."""
    commit: str | None = None
    """Commit of the code that ran it, which the store adds from the stage's manifest; None outside a repository."""

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads, as plain JSON values; what is None is left out."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in {**values, "stage": self.stage.to_json()}.items() if value is not None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read a summary of this or another version of the code: keys that are not known are passed over.

        Raises ValueError: something is missing that every version wrote.
        """
        known = {field.name: value[field.name] for field in fields(cls) if field.name in value}
        missing = [field.name for field in fields(cls) if field.default is MISSING and field.name not in known]
        if missing:
            raise ValueError(f"{FILE} lacks {', '.join(missing)}")
        return cls(**{**known, "stage": Stage.from_json(value["stage"])})
