"""Executing a run once: the executed notebook is kept under a key of everything that it depends on."""

import ast
import copy
import hashlib
import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
import torch

from .. import data, models, provenance
from .chapter import Chapter

_PACKAGE = Path(data.__file__).parent


@dataclass(frozen=True)
class Result:
    """What became of a run: its executed notebook, or why there is none."""

    notebook: nbformat.NotebookNode | None
    path: Path | None = None
    cached: bool = False
    missing_data: str = ""
    failure: str = ""


def execute(
    name: str,
    chapter: Chapter,
    parameters: Mapping[str, Any],
    preset: str,
    store: Path,
    force: bool = False,
    progress: bool = True,
) -> Result:
    """Execute the chapter with these parameters, or take the notebook that an earlier execution left in ``store``.

    Nothing is raised for what can happen to a run: missing data and every error of the notebook are in the result.
    """
    path = look_up(name, chapter, parameters, preset, store, force)
    if isinstance(path, Result):
        return path
    running = path.with_suffix(f".{os.getpid()}.running")
    try:
        store.mkdir(parents=True, exist_ok=True)
        with environment({provenance.PRESET: preset}):
            notebook = papermill.execute_notebook(
                copy.deepcopy(chapter.notebook),  # and not the file, which may have changed since the key was made
                None,
                dict(parameters),
                kernel_name="python3",
                cwd=str(chapter.path.parent),
                progress_bar=progress,
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],  # no remarks on how kernel and client talk
            )
        nbformat.write(notebook, running)
        running.replace(path)
    except Exception as error:  # of any cell, of the kernel, of the disk: the other runs go on
        return Result(None, failure=f"{type(error).__name__}: {_plain(str(error))}")
    finally:
        running.unlink(missing_ok=True)
    return Result(notebook, path)


def look_up(
    name: str, chapter: Chapter, parameters: Mapping[str, Any], preset: str, store: Path, force: bool = False
) -> Result | Path:
    """The result, where nothing has to be executed for it; else where the executed notebook is to lie."""
    try:
        task = chapter.experiment.from_namespace(dict(parameters)).task()
    except data.DataUnavailable as error:
        return Result(None, missing_data=str(error))
    except (data.DataError, ValueError) as error:
        return Result(None, failure=str(error))
    path = store / f"{name}-{key(chapter, parameters, preset, task.identity)[:16]}.ipynb"
    if not force and (kept := _read(path)):
        return Result(kept, path, cached=True)
    return path


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the processes that are started inside."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def threads(number: int) -> Iterator[None]:
    """PyTorch's threads in the processes that are started inside, and here, where the key names the device."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        with environment({"OMP_NUM_THREADS": str(number), "MKL_NUM_THREADS": str(number)}):
            yield
    finally:
        torch.set_num_threads(before)


def _read(path: Path) -> nbformat.NotebookNode | None:
    """A kept notebook; None where there is none, or none that can be read."""
    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError):
        return None


def key(chapter: Chapter, parameters: Mapping[str, Any], preset: str, data_identity: str) -> str:
    """Changes with everything that can change the executed notebook, and with nothing else of the project."""
    code = [cell.source for cell in chapter.notebook.cells if cell.cell_type == "code"]
    everything = {
        "notebook": [(c.cell_type, c.source, dict(c.metadata)) for c in chapter.notebook.cells],
        "parameters": dict(parameters),
        "preset": preset,
        "library": {p.relative_to(_PACKAGE).as_posix(): _sha256(p) for p in library_files(code)},
        "data": data_identity,
        "dependencies": _dependencies(),
        "device": provenance.device_name(str(models.device(parameters["device"]))),
    }
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def library_files(code: Iterable[str]) -> list[Path]:
    """The library's modules outside of book/ that these pieces of code import, directly or through one another."""
    everything = [path for path in sorted(_PACKAGE.rglob("*.py")) if path.relative_to(_PACKAGE).parts[0] != "book"]
    found = {_PACKAGE / "__init__.py"}
    waiting = [(source, None) for source in code] + [(path.read_text(), path) for path in found]
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
            waiting.append((path.read_text(), path))
    return sorted(found)


def _imported(source: str, path: Path | None) -> set[str]:
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
    return {name for name in names if name.split(".")[0] == "catapults"}


def _passed(name: str) -> Iterator[Path]:
    """The files that importing a dotted name would execute, if they exist."""
    places = _PACKAGE.joinpath(*name.split(".")[1:])
    for place in (places, *places.parents):
        if place == _PACKAGE:
            return
        yield from (place.with_suffix(".py"), place / "__init__.py")


def _dependencies() -> dict[str, str]:
    names = [re.match(r"[\w.-]+", r)[0] for r in importlib.metadata.requires("catapults") if "extra ==" not in r]
    versions = {name: importlib.metadata.version(name) for name in [*names, "ipykernel", "papermill"]}
    return versions | {"python": platform.python_version()}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _plain(text: str) -> str:
    """Without the terminal colours of IPython's tracebacks."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
