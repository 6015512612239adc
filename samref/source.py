"""Which code makes a stage: digests of the modules that its kind imports, without comments and docstrings.

What is hashed into ids are settings and contents; the code is not, so that a store stays good while code is tidied.
VERSION is raised when our own numbers change. Whoever changes a model while developing it is told instead: each stage
is noted with the digests of these modules, and those that were made by others can be made anew.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from samref.backbones import module_of
from samref.stage import Kind, Stage

_PACKAGE = Path(__file__).parent
# What they say is in the ids already: settings by their values, kinds of stages by VERSION.
_IN_IDS = ("config.py", "stage.py")


def code_of(stage: Stage) -> Mapping[str, str]:
    """The code that makes a stage: module, as a path within this package (`refiner/gfr.py`), and its short digest.

    These are the module of the stage's kind, that of its backbone, and all that they import of this package. A change
    of comments, docstrings or layout changes no digest. The files are read once a process.
    """
    return _code(stage.kind, stage.key["backbone"])


@cache
def _code(kind: Kind, backbone: str) -> Mapping[str, str]:
    found: dict[str, str] = {}
    open_modules = [f"{kind}.py", _file(module_of(backbone)) or ""]
    while open_modules:
        name = open_modules.pop()
        if name not in found and name not in _IN_IDS:
            found[name], imported = _module(name)
            open_modules += imported
    return dict(sorted(found.items()))


@cache
def _module(name: str) -> tuple[str, tuple[str, ...]]:
    """A module's digest, and the modules of this package that it imports, wherever in it that happens."""
    tree = ast.parse((_PACKAGE / name).read_text(encoding="utf-8"))
    imported: dict[str, None] = {}
    blocks: list[ast.AST] = [tree]
    while blocks:  # of statements, as neither imports nor docstrings stand in expressions
        block = blocks.pop()
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner = getattr(block, field, None)
            if isinstance(inner, list):
                blocks += inner
        imported |= dict.fromkeys(_imports(block))
        if isinstance(block, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            block.body = [each for each in block.body if not _is_text(each)] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:12], tuple(imported)


def _is_text(statement: ast.stmt) -> bool:
    """Whether a statement is a docstring: of a module, class or function, or one under a constant or field."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _imports(statement: ast.AST) -> Iterator[str]:
    """The files of this package that a statement imports."""
    names: list[str] = []
    if isinstance(statement, ast.Import):
        names = [alias.name for alias in statement.names]
    elif isinstance(statement, ast.ImportFrom) and statement.module:
        names = [statement.module, *(f"{statement.module}.{alias.name}" for alias in statement.names)]
    return (file for name in names if (file := _file(name)))


@cache
def _file(module: str) -> str | None:
    """A module's file within this package; None where it is no module of it."""
    package, _, rest = module.partition(".")
    if package != "samref" or not rest:
        return None
    path = rest.replace(".", "/")
    return next((file for file in (f"{path}.py", f"{path}/__init__.py") if (_PACKAGE / file).is_file()), None)
