"""What code depends on: the library's files that it imports, and the versions of what is installed."""

import ast
import functools
import hashlib
import importlib.metadata
import platform
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

_PACKAGE = Path(__file__).parent
_version = functools.cache(importlib.metadata.version)


def library(code: Iterable[str]) -> dict[str, str]:
    """The sha256 of each of :func:`library_files`, by its path within the package."""
    return {path.relative_to(_PACKAGE).as_posix(): _sha256(path) for path in library_files(code)}


def of_module(name: str) -> dict[str, str]:
    """The sha256 of the file of an imported module and of all of the library that it imports, by path.

    ``name``: dotted. Of a module outside of the library, imports from other such modules are not followed. Raises
    ``ValueError`` for a module without a file, such as a notebook.
    """
    if name.split(".")[0] == "catapults":
        return library([f"import {name}"])
    file = getattr(sys.modules[name], "__file__", None)
    if file is None:
        raise ValueError(f"module = {name!r}: what is defined here has no file; allowed are modules that do")
    return {name: _sha256(Path(file))} | library([Path(file).read_text(encoding="utf-8")])


def library_files(code: Iterable[str]) -> list[Path]:
    """The library's modules outside of book/ that these pieces of code import, directly or through one another."""
    everything = [path for path in sorted(_PACKAGE.rglob("*.py")) if path.relative_to(_PACKAGE).parts[0] != "book"]
    found = {_PACKAGE / "__init__.py"}
    waiting = [(source, None) for source in code] + [(path.read_text(encoding="utf-8"), path) for path in found]
    while waiting:
        source, path = waiting.pop()
        try:
            names = _imported(source, path)
        except SyntaxError:  # there is no telling what it uses
            return everything
        if "catapults" in names:
            return everything
        for path in {path for name in names for path in _passed(name)}.intersection(everything) - found:
            found.add(path)
            waiting.append((path.read_text(encoding="utf-8"), path))
    return sorted(found)


def dependencies(*others: str) -> dict[str, str]:
    """The versions of Python, of the library's dependencies and of the ``others``, by name."""
    names = [re.match(r"[\w.-]+", r)[0] for r in importlib.metadata.requires("catapults") if "extra ==" not in r]
    versions = {name: _version(name) for name in [*names, *others]}
    return versions | {"python": platform.python_version()}


@functools.lru_cache(1024)
def _imported(source: str, path: Path | None) -> frozenset[str]:
    """Dotted names that may be modules of the library or something in one, ``catapults`` for all of it.

    ``path`` is the library's file that the source is of. IPython's line magics are left out. Raises SyntaxError.
    """
    if source.startswith("%%"):
        raise SyntaxError("a cell magic")
    source = re.sub(r"^[%!].*$", "", source, flags=re.MULTILINE)
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.level == 0 or path):
            start = ["catapults", *path.parent.relative_to(_PACKAGE).parts] if node.level else []
            parts = start[: len(start) + 1 - node.level] + ([node.module] if node.module else [])
            names |= {".".join([*parts, alias.name]) for alias in node.names}
    return frozenset(name for name in names if name.split(".")[0] == "catapults")


def _passed(name: str) -> Iterator[Path]:
    """The files that importing a dotted name would execute, if they exist."""
    places = _PACKAGE.joinpath(*name.split(".")[1:])
    for place in (places, *places.parents):
        if place == _PACKAGE:
            return
        yield from (place.with_suffix(".py"), place / "__init__.py")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
