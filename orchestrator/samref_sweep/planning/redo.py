"""Stages that are done, but by other code than today's: which they are, how that is said, and what `--redo` redoes."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from samref.source import code_of
from samref.stage import Kind, Stage
from samref_sweep.planning.work import KINDS

CHANGED = "changed"
"""Among what is to be redone, beside kinds of stages: whatever other code made."""
REDO = (*KINDS, CHANGED)
LISTED = 3
"""Modules that a sentence names."""


@dataclass(frozen=True)
class OtherCode:
    """The finished stages of a plan that other code than today's made."""

    stages: Mapping[str, Kind]
    """Stage id → its kind."""
    modules: tuple[str, ...]
    """What changed since, as paths within the package samref."""

    @property
    def text(self) -> str | None:
        """One sentence for people, with what to do; None where there are no such stages."""
        if not self.stages:
            return None
        kinds, number, more = set(self.stages.values()), len(self.stages), len(self.modules) - LISTED
        told = ", ".join(self.modules[:LISTED]) + (f" and {more} more" if more > 0 else "")
        what, they, them = ("stages were", "they are", "them") if number > 1 else ("stage was", "it is", "it")
        redo = kinds.pop() if len(kinds) == 1 else CHANGED
        return (
            f"{number} {what} made by other code ({told} changed since); {they} reused: `--redo {redo}` makes "
            f"{them} anew"
        )


def other_code(stages: Iterable[Stage], done: Collection[str], made: Mapping[str, Mapping[str, str]]) -> OtherCode:
    """Find those of the stages that are done and were made by other code.

    `made` is stage id → module → digest, as noted when it was made; of a stage without a note nothing is said.
    """
    found: dict[str, Kind] = {}
    modules: set[str] = set()
    for stage in stages if made else ():
        if stage.id in done and (was := made.get(stage.id)) is not None:
            # A module that is there no more was imported by one whose digest is another now.
            now = code_of(stage)
            if changed := {name for name in now if was.get(name) != now[name]}:
                found[stage.id] = stage.kind
                modules |= changed
    return OtherCode(found, tuple(sorted(modules)))


def superseded(
    stages: Iterable[Stage], done: Collection[str], redo: Collection[str], changed: Collection[str]
) -> frozenset[str]:
    """The ids of finished stages that are to be made anew: those that were asked for, and all that read their output.

    Each of the stages comes after what it needs. `redo` are kinds of stages, or CHANGED: those with an id in `changed`.
    """
    wanted = changed if CHANGED in redo else ()
    anew: set[str] = set()
    for stage in stages if redo else ():
        if stage.kind in redo or stage.id in wanted or not anew.isdisjoint(stage.needs.values()):
            anew.add(stage.id)  # done or not: an evaluation may be, whose training was deleted
    return frozenset(anew.intersection(done))
