"""Executing a run once: the executed notebook is kept under a key of everything that it depends on."""

import copy
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill

from .. import data, devices, fingerprint, provenance
from ..processes import environment
from . import kernels
from .chapter import Chapter


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
                kernel_manager_class=kernels.Manager,
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
        "library": fingerprint.library(code),
        "data": data_identity,
        "dependencies": fingerprint.dependencies("ipykernel", "papermill"),
        "device": provenance.device_name(str(devices.device(parameters["device"]))),
    }
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def _plain(text: str) -> str:
    """Without the terminal colours of IPython's tracebacks."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
