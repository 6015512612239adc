"""Python modules as source text: a digest of what counts in one, and what it imports. Nothing is executed."""

import ast
import gc
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def read(file: Path, package: str) -> tuple[str, tuple[str, ...]]:
    """A module's short digest, without comments, docstrings and layout, and the modules that it may import.

    Relative imports start from `package`, a dotted name. Of all import statements, wherever in the module they stand,
    the dotted names are given; of `from a import b` both `a` and `a.b`, of which the latter need not be a module.
    """
    text = file.read_text(encoding="utf-8")
    with _no_garbage_collected():
        tree = ast.parse(text, str(file))
    imported: dict[str, None] = {}
    blocks: list[ast.AST] = [tree]
    while blocks:  # of statements, as neither imports nor docstrings stand in expressions
        block = blocks.pop()
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner = getattr(block, field, None)
            if isinstance(inner, list):
                blocks += inner
        imported |= dict.fromkeys(_imports(block, package))
        if isinstance(block, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            block.body = [each for each in block.body if not _is_text(each)] or [ast.Pass()]
    return short_digest(ast.unparse(tree)), tuple(imported)


@contextmanager
def _no_garbage_collected() -> Iterator[None]:
    """For the block, collect no garbage, whose finalizers may let another thread run.

    Should that one parse Python, too, as MLflow's does, Python 3.11 loses count of the tree's depth (SystemError).
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def short_digest(text: str) -> str:
    """Twelve hexadecimal digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def file_in(root: Path, module: str) -> Path | None:
    """The file of a module whose top package is the folder `root`; None where it has none there."""
    path = root.joinpath(*module.split(".")[1:])
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _is_text(statement: ast.stmt) -> bool:
    """Whether a statement is a docstring: of a module, class or function, or one under a constant or field."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _imports(statement: ast.AST, package: str) -> Iterator[str]:
    if isinstance(statement, ast.Import):
        yield from (alias.name for alias in statement.names)
    elif isinstance(statement, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) - statement.level + 1] if statement.level else []
        module = ".".join([*above, *filter(None, [statement.module])])
        yield module
        yield from (f"{module}.{alias.name}" for alias in statement.names)
