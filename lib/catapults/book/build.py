"""Build the book: obtain the results, execute what is not cached, stage, render, and put the new pages in the place of
the old ones."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

from ..compute import store
from ..compute.atomic import written
from ..compute.processes import alone, environment
from ..compute.sweep import TERMINAL
from . import accessible, reasons
from . import runs as runs_file
from . import sheets as sheets_of
from .execute import execute_all
from .sheets import FAILED, Sheet
from .stage import StageError, stage


class BuildError(Exception):
    """The book is not as it should be; the message lists every failure."""


def build(
    root: Path, output: Path, preset: str, say: Callable[[str], None], force: bool = False, jobs: int | None = None
) -> Path:
    """Build the book of the project at ``root`` into ``output``, of which the parts are

    - ``results/``: what the trainings gave that the record lacks, unless the person keeps these elsewhere,
    - ``runs/``: executed notebooks, kept from one build to the next,
    - ``stage/``: what Sphinx read,
    - ``html/``: the book. Returns the path of its first page.

    ``force``: execute all notebooks again; ``jobs``: how many at a time, as in
    :func:`catapults.book.execute.execute_all`.

    Raises :class:`BuildError`, once every run has been attempted, if one of them failed or Sphinx warned. Missing data
    and results that would take long to compute are no failure: the run's page says so.
    """
    runs = runs_file.load(root / "chapters")
    waiting = lambda: say(f"waiting for another build in {output}")  # noqa: E731
    with alone(output / "build", waiting), environment(for_notebooks(output)):
        sheets = sheets_of.obtain(runs, preset, say)
        sheets = execute_all(sheets, output / "runs", say, force, jobs)
        return _make_pages(root, output, sheets, preset, say)


def for_notebooks(output: Path) -> dict[str, str]:
    """The environment in which notebooks are executed: where results are kept, and where a person sees progress."""
    values = {store.FOLDER: str(store.folder(output / "results"))}
    return values | {TERMINAL: os.ttyname(2)} if os.isatty(2) else values


def _make_pages(root: Path, output: Path, sheets: Mapping[str, Sheet], preset: str, say: Callable[[str], None]) -> Path:
    for outdated in reasons.stale(sheets) if preset == "book" else ():
        say(f"to mend: {outdated}")
    problems = [f"run {name!r} failed:\n{sheet.reason}" for name, sheet in sheets.items() if sheet.state == FAILED]
    try:
        stage(root, output / "stage", sheets, preset)
    except StageError as error:
        raise BuildError("\n\n".join([*problems, str(error)])) from None

    html, note = output / "html", output / "html.json"
    digest = _digest(output / "stage")
    if _noted(note) == {"of": digest, "files": _files(html)}:
        say("pages: nothing changed")
    else:
        note.unlink(missing_ok=True)
        warnings = _render(output, say)
        if warnings:
            problems.append(f"Sphinx:\n{warnings}")
        else:
            written(note, json.dumps({"of": digest, "files": _files(html)}).encode())
    if problems:
        raise BuildError("\n\n".join(problems))
    return html / "index.html"


def _render(output: Path, say: Callable[[str], None]) -> str:
    """Run jupyter-book in an empty folder and, if it made pages, replace the book's. Returns what it complained of."""
    fresh = output / "rendering"
    shutil.rmtree(fresh, ignore_errors=True)  # with old doctrees, a second build would hide the first one's warnings
    say("pages: rendering")
    complaints = rendered(output / "stage", fresh)
    pages = fresh / "_build" / "html"
    if (pages / "index.html").exists():
        accessible.mend(pages)
        old = output / "html.old"
        shutil.rmtree(old, ignore_errors=True)
        if (output / "html").exists():
            (output / "html").rename(old)
        pages.rename(output / "html")
        shutil.rmtree(old, ignore_errors=True)
    elif not complaints:
        complaints = "no pages were made"
    shutil.rmtree(fresh, ignore_errors=True)
    return complaints


def rendered(stage: Path, fresh: Path) -> str:
    """Let jupyter-book make ``fresh/_build/html`` from a staged tree. Returns what it complained of."""
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(stage)]
    command += ["--path-output", str(fresh), "-W", "-n", "--keep-going", "-q"]
    result = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace")
    if result.returncode == 0:
        return ""
    return result.stderr.strip() or result.stdout.strip() or f"exit status {result.returncode}"


def _noted(note: Path) -> object:
    try:
        return json.loads(note.read_bytes())
    except (OSError, ValueError):
        return None


def _files(folder: Path) -> dict[str, int]:
    """The size of each file by its path: a page that somebody has deleted or cut off is made again."""
    return {p.relative_to(folder).as_posix(): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}


def _digest(folder: Path) -> str:
    """Of everything that the pages depend on: what was staged, and what renders it."""
    renderers = {name: version(name) for name in ("sphinx", "jupyter-book", "myst-nb", "sphinx-book-theme")}
    digest = hashlib.sha256(repr(renderers).encode())
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
