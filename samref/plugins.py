"""Plug-ins: a person's own backbone, dataset, clicker or metric, named by its import path.

`mylab.nets:build` is `build` of the module `mylab.nets`; `./nets.py:build`, a file, is `nets:build` whose folder is
looked in as well (`beside`). `mylab.data:open?part=DIS` is called with `part="DIS"`. The name says where the code is
found; what it is goes into ids as `source`, so changed code is other work. Whatever goes wrong in a plug-in is one
line with its own file and line.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from samref import modules
from samref.errors import UserError

_NAME = re.compile(r"(?P<module>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<attribute>[A-Za-z_]\w*)(\?(?P<options>.*))?")
_HUGGING_FACE = "hf:"
_FILE = re.compile(r"(?P<file>.+\.py)(?P<rest>:.*)")
# What stages are made with anyway: their summaries say which versions, and no id does.
_OURS = {"samref", "samref_sweep", "torch", "torchvision", "numpy", "cv2", "PIL", "scipy"}
_one_at_a_time = Lock()
_folders: dict[str, None] = {}
_first_sources: dict[str, str] = {}


class PluginError(UserError, ValueError):
    """A plug-in cannot be imported, does not fit, or failed; one line with its own file and line."""


class SourceModule(NamedTuple):
    """A module that a plug-in needs."""

    source: str
    """The digest of its text, or of an installed distribution the name and version."""
    root: Path | None
    """The file or folder of its top module or package, which a cluster's workers need; None of a distribution."""


def is_plugin(name: str) -> bool:
    """Whether a name is of no part of this package: `module:attribute`, `module:attribute?option=value`, `hf:…`."""
    return is_hugging_face(name) or bool(_NAME.fullmatch(name))


def is_hugging_face(name: str) -> bool:
    """Whether a name is that of a network of Hugging Face's (`samref.backbones.hugging_face_files`)."""
    return name.startswith(_HUGGING_FACE)


def beside(name: str, folder: Path) -> str:
    """The name of a plug-in in a file (`./nets.py:build`) as `nets:build`, whose folder is looked in from now on.

    So is a network in a folder, `hf:./weights/mine`, as `hf:mine`. A name of neither is returned as it is; a relative
    path starts from `folder`.
    """
    if is_hugging_face(name) and name[len(_HUGGING_FACE) :].startswith((".", "/", "~")):
        return _network_beside(name, folder)
    found = _FILE.fullmatch(name)
    if not found:
        return name
    file = (folder / Path(found["file"]).expanduser()).resolve()
    if not file.is_file():
        raise PluginError(f"{name}: there is no file {file}; give the plug-in's path from the sweep file's folder")
    if not file.stem.isidentifier():
        raise PluginError(f"{name}: {file.name} is no name of a module; use letters, digits and underscores")
    look_in(file.parent)
    spec = importlib.util.find_spec(file.stem)
    if spec is None or spec.origin is None or Path(spec.origin).resolve() != file:
        other = spec.origin if spec else "nothing"
        raise PluginError(f"{name}: the module name {file.stem} is taken by {other}; rename {file}")
    return f"{file.stem}{found['rest']}"


def _network_beside(name: str, folder: Path) -> str:
    place = (folder / Path(name.removeprefix(_HUGGING_FACE)).expanduser()).resolve()
    if not (place / "config.json").is_file():
        raise PluginError(f"{name}: {place} has no config.json; give a folder that save_pretrained wrote")
    look_in(place.parent)
    first = next(each / place.name for each in folders() if (each / place.name / "config.json").is_file())
    if first != place:
        raise PluginError(f"{name}: the name {place.name} is taken by {first}; rename {place}")
    return f"{_HUGGING_FACE}{place.name}"


def look_in(folder: Path) -> None:
    """Import plug-ins from this folder too, after all that Python's own path has."""
    _folders[str(folder)] = None
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    importlib.invalidate_caches()
    _root.cache_clear()


def folders() -> tuple[Path, ...]:
    """The folders that plug-ins are imported from beside Python's own path."""
    return tuple(map(Path, _folders))


def load(name: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """What a plug-in's name stands for, and the options behind its question mark.

    Raises PluginError: it cannot be imported, has nothing of that name, or changes global state while it is imported.
    """
    module_name, attribute, options = _parsed(name)
    source(name)
    with alone(name):
        module = importlib.import_module(module_name)
    found = getattr(module, attribute, None)
    if not callable(found):
        known = ", ".join(key for key, value in vars(module).items() if callable(value) and key[0] != "_")
        raise PluginError(f"{name}: {module.__file__} has no {attribute} that can be called; it has {known or 'none'}")
    return found, options


@cache
def ready(name: str) -> tuple[Callable[..., Any], Mapping[str, Any]]:
    """`load`, once a process: for what is called again and again, and from several threads."""
    with _one_at_a_time:
        return load(name)


def call(name: str, /, *arguments: Any, **more: Any) -> Any:
    """What a plug-in returns when it is called with its options and `more`; raises as `bind` and `alone` do."""
    found, options = bind(name, *arguments, **more)
    with alone(name):
        return found(*arguments, **options)


def bind(name: str, /, *arguments: Any, **more: Any) -> tuple[Callable[..., Any], dict[str, Any]]:
    """What a plug-in's name stands for and all its options, if it takes them; it is not called.

    Raises PluginError: as `load`, or its signature does not take these arguments.
    """
    found, options = load(name)
    options |= more
    try:
        inspect.signature(found).bind(*arguments, **options)
    except TypeError as error:
        named = ", ".join([*(type(each).__name__ for each in arguments), *(f"{key}=…" for key in options)])
        raise PluginError(f"{name}: {place_of(found)}: it is called with ({named}): {error}") from None
    return found, options


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """Run a plug-in's code as `told` and `unchanged` do; what it prints goes to stderr."""
    with unchanged(name), told(name), contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def unchanged(name: str) -> Iterator[None]:
    """Refuse a plug-in whose code in the block does not leave global state as it was."""
    before = _state()
    yield
    for what, value in _state().items():
        if value != before[what]:
            raise PluginError(
                f"{name}: {place_of(name)}: it changed {what} from {before[what]} to {value}, which everything else in "
                "this process depends on; leave it as it was"
            )


@contextlib.contextmanager
def told(name: str) -> Iterator[None]:
    """Say what a plug-in raises in the block in one line, with its own file and line; our own errors pass."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, after which a smaller batch is tried
            raise
        text = " ".join(str(error).split())
        raise PluginError(f"{name}: {_raised_at(name, error)}: {type(error).__name__}: {text}") from error


def source(name: str) -> str:
    """A digest of a plug-in's code: its modules and all that they import, wherever.

    Of modules the text counts, without comments, docstrings and layout; of installed distributions the name and
    version; Python's own library, and what stages are made with anyway (torch, numpy), do not count. Raises
    PluginError: there is no such module, or its text is no Python; or it has changed since this process imported it.
    """
    parts = _modules(name)
    digest = modules.short_digest(json.dumps({module: part.source for module, part in sorted(parts.items())}))
    if _first_sources.setdefault(name.partition("?")[0], digest) != digest:
        raise PluginError(f"{name}: its source has changed since this process imported it; start Python again")
    return digest


def roots() -> tuple[Path, ...]:
    """The files and folders of all plug-ins that were used so far, and of what they import: what workers need."""
    found = (part.root for name in _first_sources for part in _modules(name).values())
    return tuple(dict.fromkeys(root for root in found if root))


def _parsed(name: str) -> tuple[str, str, dict[str, Any]]:
    found = _NAME.fullmatch(name)
    if not found:
        raise PluginError(f"{name} names no plug-in; write module:attribute, as mylab.nets:build")
    options: dict[str, Any] = {}
    for option in (found["options"] or "").split("&") if found["options"] is not None else ():
        key, equals, value = option.partition("=")
        if not equals or not key.isidentifier() or key in options:
            raise PluginError(f"{name}: {option!r} is no option; write {name.partition('?')[0]}?key=value&other=value")
        options[key] = _value(value)
    return found["module"], found["attribute"], options


def _value(text: str) -> Any:
    """A number, true, false, null, or else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _modules(name: str) -> dict[str, SourceModule]:
    """A plug-in's module and all that it imports."""
    first = _parsed(name)[0]
    found: dict[str, SourceModule] = {}
    waiting = [first]
    while waiting:
        module = waiting.pop()
        top = module.partition(".")[0]
        if module in found or top in _OURS or top in sys.stdlib_module_names:
            continue
        root = _root(top)
        if root is None:
            if module == first:
                where = ", ".join(map(str, folders())) or "no other folder"
                raise PluginError(f"{name}: there is no module {top} on Python's path or in {where}")
        elif not isinstance(root, Path):
            found[top] = SourceModule(root, None)
        elif file := root if root.is_file() and module == top else modules.file_in(root, module):
            package = module if file.name == "__init__.py" else module.rpartition(".")[0]
            try:
                stat = file.stat()
                digest, imported = _read(file, package, stat.st_mtime_ns, stat.st_size)
            except (SyntaxError, UnicodeDecodeError) as error:
                line = getattr(error, "lineno", None) or 1
                raise PluginError(f"{name}: {file}:{line}: {type(error).__name__}: {error}") from None
            found[module] = SourceModule(digest, root)
            parents = module.split(".")[:-1]
            waiting += [".".join(parents[: count + 1]) for count in range(len(parents))]
            waiting += imported
        elif module == first:
            raise PluginError(f"{name}: there is no module {module} in {root}")
    return found


@cache
def _read(file: Path, package: str, *version: int) -> tuple[str, tuple[str, ...]]:
    """`modules.read`, once for each version of a file."""
    return modules.read(file, package)


@cache
def _root(top: str) -> Path | str | None:
    """The file or folder of a top module or package; of an installed distribution `name==version`; None: there is none.

    The current folder is looked in, too, where Python's path does not have it.
    """
    try:
        spec = importlib.util.find_spec(top)
        if spec is None and any((Path.cwd() / each).exists() for each in (f"{top}.py", top)):
            look_in(Path.cwd())
            spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    place = Path(
        next(iter(spec.submodule_search_locations), "") if spec.submodule_search_locations else spec.origin or ""
    )
    if {"site-packages", "dist-packages"} & set(place.parts):
        known = importlib.metadata.packages_distributions().get(top, [])
        return ", ".join(f"{each}=={importlib.metadata.version(each)}" for each in sorted(set(known))) or top
    return place if place.exists() else None


def _state() -> Mapping[str, Any]:
    """Global state that a plug-in must leave alone, in words."""
    torch = sys.modules.get("torch")
    ready = torch is not None and hasattr(torch, "set_float32_matmul_precision")
    return {
        "the current folder": str(Path.cwd()),
        "torch's default dtype": str(torch.get_default_dtype()) if torch and ready else "torch.float32",
        "torch's gradients": torch.is_grad_enabled() if torch and ready else True,
        "torch's precision of products": torch.get_float32_matmul_precision() if torch and ready else "highest",
        "torch's deterministic algorithms": torch.are_deterministic_algorithms_enabled() if torch and ready else False,
    }


def place_of(found: Any) -> str:
    """The file and line of what a plug-in's name stands for, or of a function or class."""
    if isinstance(found, str):
        module_name, attribute, _ = _parsed(found)
        module = sys.modules.get(module_name)
        found = getattr(module, attribute, f"{getattr(module, '__file__', module_name)}:1")
    with contextlib.suppress(TypeError, OSError):
        function = inspect.unwrap(found)
        return f"{inspect.getsourcefile(function)}:{inspect.getsourcelines(function)[1]}"
    return str(found)


def _raised_at(name: str, error: BaseException) -> str:
    """The innermost file and line of a plug-in's own on the way of an error, else where the plug-in begins."""
    own = [str(part.root) for part in _modules(name).values() if part.root]
    frames = [each for each in traceback.extract_tb(error.__traceback__) if each.filename.startswith(tuple(own))]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else place_of(name)
