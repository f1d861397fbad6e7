"""Executing notebooks, which load results and show them: kept under a key of everything that they depend on."""

import ast
import functools
import hashlib
import importlib.metadata
import itertools
import json
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat

from ..compute import fingerprint, processes
from ..compute.atomic import written
from ..compute.sweep import look_up
from ..paper import VERDICTS
from ..paper.provenance import PRESET
from .chapter import Chapter
from .sheets import Sheet, sheet_of

_MOST_JOBS = 8
_PACKAGE = Path(__file__).parents[1]
_SHOWING = ("paper/", "figures/", "display.py", "history.py", "schedules.py", "catapult.py")
_DRAWING = ("ipykernel", "matplotlib", "numpy", "papermill", "seaborn")


def execute_all(
    sheets: Mapping[str, Sheet],
    folder: Path,
    say: Callable[[str], None],
    force: bool = False,
    jobs: int | None = None,
) -> dict[str, Sheet]:
    """The sheets with their executed notebooks, which lie in ``folder``; those that cannot be shown as they are.

    ``jobs`` notebooks are executed at a time, each in a kernel of its own: by default one a core, eight at most.
    Nothing is raised for an error of a notebook: the sheet has it.
    """
    done: dict[str, Sheet] = {}
    waiting: dict[str, Sheet] = {}
    for name, sheet in sheets.items():
        if not sheet.complete:
            done[name] = sheet
        else:
            place = path_of(sheet, folder)
            if force or (kept := kept_notebook(place)) is None:
                waiting[name] = replace(sheet, path=place)
                continue
            done[name] = replace(sheet, notebook=kept, path=place, cached=True)
        _tell(done[name], 0.0, say)
    jobs = jobs or min(_cores(), _MOST_JOBS)
    if jobs > 1 and len(waiting) > 1:
        done |= _side_by_side(waiting, say, jobs)
    for name, sheet in waiting.items():
        if name not in done:
            started = time.monotonic()
            done[name] = _with_notebook(sheet, execute(*_arguments(sheet)))
            _tell(done[name], time.monotonic() - started, say)
    return {name: done[name] for name in sheets}


def run_one(sheet: Sheet, folder: Path) -> Sheet:
    """The sheet of one run with its executed notebook, which trains what is missing, and with what that gave."""
    if sheet.complete and (kept := kept_notebook(path_of(sheet, folder))) is not None:
        return replace(sheet, notebook=kept, path=path_of(sheet, folder), cached=True)
    unfinished = folder / f"{sheet.run.name}-{os.getpid()}.ipynb"
    try:
        failure = execute(*_arguments(replace(sheet, path=unfinished)), progress=True)
        if failure:
            return replace(sheet, failure=failure)
        done = sheet_of(sheet.run, sheet.preset, sheet.page, look_up(sheet.page.experiments(), sheet.device))
        place = path_of(done, folder)
        unfinished.replace(place)
    finally:
        unfinished.unlink(missing_ok=True)
    return replace(done, notebook=kept_notebook(place), path=place)


def execute(
    notebook: str, values: Mapping[str, Any], preset: str, folder: str, place: str, progress: bool = False
) -> str:
    """Execute a chapter, given as JSON, with these parameters in ``folder`` and keep it at ``place``.

    ``preset``: that they are of, for the notebook to say. Returns why it failed, or nothing: errors of a cell, of the
    kernel and of the disk are no reason to stop the rest.
    """
    import papermill  # which takes as long to import as the rest of the command line

    try:
        with processes.environment({PRESET: preset}):
            executed = papermill.execute_notebook(
                nbformat.reads(notebook, as_version=4),  # and not the file, which may have changed meanwhile
                None,
                dict(values),
                kernel_name="python3",
                cwd=folder,
                progress_bar=progress,
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],  # no remarks on how kernel and client talk
            )
        written(Path(place), nbformat.writes(executed).encode())
    except Exception as error:
        return f"{type(error).__name__}: {_plain(str(error))}"
    return ""


def path_of(sheet: Sheet, folder: Path) -> Path:
    """Where the executed notebook of a sheet is to lie."""
    return folder / f"{sheet.run.name}-{key(sheet)[:16]}.ipynb"


def key(sheet: Sheet) -> str:
    """Changes with everything that can change the executed notebook: the notebook, its parameters, the results that it
    shows and what made them, the code that it shows them with, and what draws."""
    everything = {
        "notebook": [(c.cell_type, c.source, dict(c.metadata)) for c in sheet.run.chapter.notebook.cells],
        "parameters": dict(sheet.values),
        "preset": sheet.preset,
        "results": [(outcome.experiment.key, outcome.made, outcome.changed) for outcome in sheet.outcomes.values()],
        "code": code_of(sheet.run.chapter),
        "versions": {name: _version(name) for name in _DRAWING} | {"python": platform.python_version()},
    }
    if sheet.run.trains_itself:
        everything["trained with"] = code_of(sheet.run.chapter, all_of_it=True), fingerprint.dependencies()
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def code_of(chapter: Chapter, all_of_it: bool = False) -> dict[str, str]:
    """Hashes of the library's modules that a notebook shows its results with, by path: all that say what experiments
    are, and those that draw and judge which it imports, directly or through one another. ``all_of_it``: those that
    train and measure as well."""
    cells = (cell.source for cell in chapter.notebook.cells if cell.cell_type == "code")
    found = {
        p.relative_to(_PACKAGE).as_posix(): fingerprint.of_code(p) for p in (_PACKAGE / "experiments").glob("*.py")
    }
    for module in sorted({module for source in cells for module in _imported(source, all_of_it)}):
        name = _PACKAGE.joinpath(*module.split(".")[1:])
        for place in (name.with_suffix(".py"), *([name / "__init__.py"] if all_of_it else [])):
            modules = fingerprint.modules(place) if place.exists() else {}
            found |= {path: hashed for path, hashed in modules.items() if all_of_it or path.startswith(_SHOWING)}
    return found


def kept_notebook(path: Path) -> nbformat.NotebookNode | None:
    """An executed notebook; ``None`` where there is none, or none that can be read."""
    try:
        return nbformat.v4.reads(path.read_text(encoding="utf-8"))  # nbformat.read validates, for seconds
    except (OSError, ValueError):
        return None


def _imported(source: str, all_of_it: bool) -> Iterator[str]:
    """Modules of the library that draw and judge, or all, as a cell imports them."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    kinds = ("catapults.",) if all_of_it else ("catapults.paper", "catapults.figures", "catapults.display")
    return (name for name in names if name.startswith(kinds))


_version = functools.cache(importlib.metadata.version)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _arguments(sheet: Sheet) -> tuple[str, dict[str, Any], str, str, str]:
    chapter = sheet.run.chapter
    return (
        nbformat.writes(chapter.notebook),
        dict(sheet.values),
        sheet.preset,
        str(chapter.path.parent),
        str(sheet.path),
    )


def _side_by_side(sheets: Mapping[str, Sheet], say: Callable[[str], None], jobs: int) -> dict[str, Sheet]:
    """In processes: neither papermill nor Python's parser is made for threads. If one dies, the sheets so far."""
    done: dict[str, Sheet] = {}
    waiting = iter(sheets)
    running: dict[Future, tuple[str, float]] = {}
    with processes.pool(min(jobs, len(sheets))) as submit:
        try:
            while len(done) < len(sheets):
                for name in itertools.islice(waiting, jobs - len(running)):
                    running[submit(execute, *_arguments(sheets[name]))] = name, time.monotonic()
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    name, started = running.pop(future)
                    done[name] = _with_notebook(sheets[name], future.result())
                    _tell(done[name], time.monotonic() - started, say)
        except BrokenProcessPool:
            say("a process of the build has died, perhaps for want of memory: the rest one after the other")
    return done


def _with_notebook(sheet: Sheet, failure: str) -> Sheet:
    return replace(sheet, failure=failure) if failure else replace(sheet, notebook=kept_notebook(sheet.path))


def _tell(sheet: Sheet, seconds: float, say: Callable[[str], None]) -> None:
    name = sheet.run.name
    if sheet.notebook is None:
        say(f"{name}: not shown, {sheet.state}")
        return
    verdicts = [claim.verdict for claim in sheet.claims.values()]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS if verdict in verdicts)
    say(f"{name}: {'cached' if sheet.cached else f'{seconds:.1f} s'}; claims: {counts or 'none'}")


def _plain(text: str) -> str:
    """Without the terminal colours of IPython's tracebacks."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
