"""Modules of other packages, without what those packages import beside them."""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any


def import_alone(package: str, name: str) -> ModuleType:
    """Import `package.name` and leave the package's own `__init__` until something of it is asked for.

    segment-anything's imports image tools, and with them torchvision and torch's compiler: two seconds of the start of
    every process that encodes or clicks. Raises ImportError: there is no such package, or no such module in it.
    """
    if package not in sys.modules:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        sys.modules[package] = _deferred(importlib.util.module_from_spec(spec), spec.loader)
    return importlib.import_module(f"{package}.{name}")


def _deferred(module: ModuleType, loader: Any) -> ModuleType:
    """The module, whose code runs when it is asked for a name that it has not yet (PEP 562)."""

    def run_and_look(name: str) -> Any:
        del module.__getattr__
        loader.exec_module(module)
        return getattr(module, name)

    module.__getattr__ = run_and_look  # type: ignore[method-assign]
    return module
