"""Build the book: execute what is not cached, stage, render, and put the new pages in the place of the old ones."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from .. import store
from ..processes import environment
from ..sweep import TERMINAL
from . import runs as runs_file
from .execute import Result
from .pool import execute_all
from .runs import Run
from .stage import StageError, stage


class BuildError(Exception):
    """The book is not as it should be; the message lists every failure."""


def build(
    root: Path, output: Path, preset: str, say: Callable[[str], None], force: bool = False, jobs: int | None = None
) -> Path:
    """Build the book of the project at ``root`` into ``output``, of which the parts are

    - ``runs/``: executed notebooks, kept from one build to the next,
    - ``stage/``: what Sphinx read,
    - ``results/``: what the runs' single trainings gave, unless the person keeps these elsewhere,
    - ``html/``: the book. Returns the path of its first page.

    ``jobs``: runs at a time, as in :func:`catapults.book.pool.execute_all`.

    Raises :class:`BuildError` after all runs had their turn if one of them failed or Sphinx warned. Missing data are no
    failure: the run's page says so.
    """
    runs = runs_file.load(root / "chapters")
    with _alone(output, say), environment(for_notebooks(output)):
        results = execute_all(runs, root / "chapters", preset, output / "runs", say, force, jobs)
        return _make_pages(root, output, runs, results, preset, say)


def for_notebooks(output: Path) -> dict[str, str]:
    """The environment in which runs are executed: where they keep results, and where a person sees their progress."""
    values = {store.FOLDER: str(store.folder(output / "results"))}
    return values | {TERMINAL: os.ttyname(2)} if os.isatty(2) else values


def _make_pages(
    root: Path,
    output: Path,
    runs: Mapping[str, Run],
    results: Mapping[str, Result],
    preset: str,
    say: Callable[[str], None],
) -> Path:
    problems = [f"run {name!r} failed:\n{result.failure}" for name, result in results.items() if result.failure]
    try:
        stage(root, output / "stage", runs, results, preset)
    except StageError as error:
        raise BuildError("\n\n".join([*problems, str(error)])) from None

    html = output / "html"
    digest = _digest(output / "stage")
    if (html / ".digest").exists() and (html / ".digest").read_text(encoding="utf-8") == digest:
        say("pages: nothing changed")
    else:
        warnings = _render(output, say)
        if warnings:
            problems.append(f"Sphinx:\n{warnings}")
        else:
            (html / ".digest").write_text(digest, encoding="utf-8")
    if problems:
        raise BuildError("\n\n".join(problems))
    return html / "index.html"


def _render(output: Path, say: Callable[[str], None]) -> str:
    """Run jupyter-book in an empty folder and, if it made pages, replace the book's. Returns what it complained of."""
    fresh = output / "rendering"
    shutil.rmtree(fresh, ignore_errors=True)  # with old doctrees, a second build would hide the first one's warnings
    say("pages: rendering")
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(output / "stage")]
    command += ["--path-output", str(fresh), "-W", "-n", "--keep-going", "-q"]
    result = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    pages = fresh / "_build" / "html"
    made = (pages / "index.html").exists()
    if made:
        old = output / "html.old"
        shutil.rmtree(old, ignore_errors=True)
        if (output / "html").exists():
            (output / "html").rename(old)
        pages.rename(output / "html")
        shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(fresh, ignore_errors=True)
    if result.returncode == 0 and made:
        return ""
    return result.stderr.strip() or result.stdout.strip() or f"exit status {result.returncode}"


@contextmanager
def _alone(output: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Wait until no other build writes to the same folder."""
    output.mkdir(parents=True, exist_ok=True)
    with (output / ".lock").open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another build in {output}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _digest(folder: Path) -> str:
    """Of everything that the pages depend on: what was staged, and what renders it."""
    renderers = {name: version(name) for name in ("sphinx", "jupyter-book", "myst-nb", "sphinx-book-theme")}
    digest = hashlib.sha256(repr(renderers).encode())
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
