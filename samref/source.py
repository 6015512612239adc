"""Which code makes a stage: digests of the modules that its kind imports, without comments and docstrings.

What is hashed into ids are settings and contents; the code is not, so that a store stays good while code is tidied.
VERSION is raised when our own numbers change. Whoever changes a model while developing it is told instead: each stage
is noted with the digests of these modules, and those that were made by others can be made anew.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from samref import modules
from samref.backbones import module_of
from samref.stage import Kind, Stage

_PACKAGE = Path(__file__).parent
# What they say is in the ids already: settings by their values, kinds of stages by VERSION.
_IN_IDS = ("config.py", "stage.py")
# A model is built whole, and an embedding is its encoder's alone: who works on the refiner keeps them.
_UNUSED: Mapping[Kind, str] = {"embed": "refiner/"}


def code_of(stage: Stage) -> Mapping[str, str]:
    """The code that makes a stage: module, as a path within this package (`refiner/gfr.py`), and its short digest.

    These are the module of the stage's kind, that of its backbone, and all that they import of this package. A change
    of comments, docstrings or layout changes no digest. The files are read once a process. A plug-in's source is in the
    ids instead (`samref.plugins`).
    """
    return _code(stage.kind, stage.key["backbone"])


@cache
def _code(kind: Kind, backbone: str) -> Mapping[str, str]:
    found: dict[str, str] = {}
    own, unused = "evaluation.py" if kind == "evaluate" else f"{kind}.py", _UNUSED.get(kind)
    open_modules = [own, *filter(None, [_file(module_of(backbone))])]
    while open_modules:
        name = open_modules.pop()
        if name not in found and name not in _IN_IDS and not (unused and name.startswith(unused)):
            found[name], imported = _module(name)
            open_modules += imported
    return dict(sorted(found.items()))


@cache
def _module(name: str) -> tuple[str, tuple[str, ...]]:
    """A module's digest, and the modules of this package that it imports, wherever in it that happens."""
    digest, imported = modules.read(_PACKAGE / name, "samref")  # which imports nothing by a relative name
    return digest, tuple(file for each in imported if (file := _file(each)))


@cache
def _file(module: str) -> str | None:
    """A module's file within this package; None where it is no module of it."""
    if not module.startswith("samref."):
        return None
    file = modules.file_in(_PACKAGE, module)
    return file.relative_to(_PACKAGE).as_posix() if file else None
