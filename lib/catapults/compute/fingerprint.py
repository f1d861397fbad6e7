"""What a result depends on besides its experiment: the code that a training runs through, and what it runs on."""

import ast
import functools
import hashlib
import importlib.metadata
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parents[1]
_LEFT_OUT = (
    "__init__.py",
    "history.py",  # columns, and what is read off them
    "experiments/",  # say what is computed, and are in the key themselves
    "compute/__init__.py",
    "compute/trainings/__init__.py",  # knows all kinds of experiments, of which there may be more
    # Nothing else imports a data set's own module, so that it is left out with these; its tensors have a hash
    *(f"data/{name}" for name in ("names", "folders", "finding", "downloads", "npz", "dataset")),
)
_ONLY_FOLLOWED = "data/__init__.py"  # to what draws the tasks
_VERSION_DEPENDENT = {"type_params", "type_comment", "kind", "ctx"}
_version = functools.cache(importlib.metadata.version)
_known: dict[tuple[Path, Path], dict[Path, int]] = {}  # the files that a module reaches, with when they were changed
_running: dict[Path, tuple[Any, str]] = {}  # of files: how this process has imported it, if it has, and the hash


def modules(source: Path) -> dict[str, str]:
    """A short hash of the code of a file and of all the library's modules that it imports, by path.

    Of a file outside of the library, imports from other such files are not followed. Docstrings, comments, layout and
    the messages of errors do not count. What this process has imported counts as it was then, not as the file is now.
    """
    files = _known.get((source, _PACKAGE), {})
    if not files or files != _changes(files):
        files = _known[source, _PACKAGE] = _changes([source, *_reached(source)])
    names = (p.relative_to(_PACKAGE).as_posix() if p.is_relative_to(_PACKAGE) else p.name for p in files)
    return dict(sorted(zip(names, map(_of_this_process, files), strict=True)))


def dependencies() -> dict[str, str]:
    """The versions of Python and of the packages that do the arithmetic."""
    return {name: _version(name) for name in ("torch", "numpy", "scipy")} | {"python": platform.python_version()}


def _of_this_process(path: Path) -> str:
    """The hash of a file's code; of a module that is imported, since when this was first asked for before."""
    imported = _import_of(path)
    before, hashed = _running.get(path, (None, ""))
    if imported is None or not hashed or (before is not None and before is not imported):
        hashed = of_code(path)
    _running[path] = imported, hashed
    return hashed


def _import_of(path: Path) -> Any:
    """The spec of the library's module that was imported from a file, another one once it is reloaded."""
    if not path.is_relative_to(_PACKAGE):
        return None
    name = ".".join(("catapults", *path.relative_to(_PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return spec if spec is not None and spec.origin == str(path) else None


def of_code(path: Path) -> str:
    """Twelve digits for what the code in a file does."""
    return _of_code(path, path.stat().st_mtime_ns)


def _changes(files: Iterable[Path]) -> dict[Path, int]:
    """When each was changed; 0 for one that is gone."""
    return {path: path.stat().st_mtime_ns if path.exists() else 0 for path in files}


@functools.lru_cache(1024)
def _of_code(path: Path, changed: int) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(ast.parse(path.read_bytes())):
        digest.update(piece.encode() + b"\0")
    return digest.hexdigest()[:12]


def _pieces(node: Any) -> Iterator[str]:
    """A syntax tree in words that are the same under every version of Python. Brackets say where something ends."""
    if isinstance(node, ast.AST):
        yield type(node).__name__
        for field, value in ast.iter_fields(node):
            if field in _VERSION_DEPENDENT or value is None or value == []:
                continue
            if isinstance(node, ast.Raise) and isinstance(value, ast.Call):
                value = value.func
            if field == "body" and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                value = [statement for statement in value if not _is_text(statement)]
            if isinstance(node, ast.JoinedStr):
                value = [part for part in value if getattr(part, "value", None) != ""]  # which Python 3.12 adds
            yield field
            yield from _pieces(value)
        yield ")"
    elif isinstance(node, list):
        for item in node:
            yield from _pieces(item)
        yield "]"
    else:
        yield ascii(node)  # which characters repr escapes depends on the version


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _reached(start: Path) -> list[Path]:
    """The library's modules that a file imports, directly or through one another, itself among them."""
    seen, waiting = {start}, [start]
    while waiting:
        path = waiting.pop()
        names = _imported(path, path.stat().st_mtime_ns)
        for other in {p for name in names for p in _executed(name)} - seen:
            if not other.relative_to(_PACKAGE).as_posix().startswith(_LEFT_OUT):
                seen.add(other)
                waiting.append(other)
    return sorted(path for path in seen if path.is_relative_to(_PACKAGE) and path != _PACKAGE / _ONLY_FOLLOWED)


@functools.lru_cache(1024)
def _imported(path: Path, changed: int) -> frozenset[str]:
    """Dotted names that may be modules of the library or something in one."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level and not path.is_relative_to(_PACKAGE):
                continue
            start = ["catapults", *path.parent.relative_to(_PACKAGE).parts] if node.level else []
            parts = start[: len(start) + 1 - node.level] + ([node.module] if node.module else [])
            names |= {".".join([*parts, alias.name]) for alias in node.names}
    return frozenset(name for name in names if name.split(".")[0] == "catapults")


def _executed(name: str) -> Iterator[Path]:
    """The files that importing a dotted name would execute, if they exist."""
    places = _PACKAGE.joinpath(*name.split(".")[1:])
    for place in (places, *places.parents):
        if place == _PACKAGE or not place.is_relative_to(_PACKAGE):
            return
        yield from (file for file in (place.with_suffix(".py"), place / "__init__.py") if file.exists())


def changed(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The names whose values differ, or that only one of the two has."""
    return sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
