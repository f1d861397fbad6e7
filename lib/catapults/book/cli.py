"""The command ``catapults``."""

import re
import shutil
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .. import data
from ..experiments import ParameterError
from ..processes import environment
from . import runs as runs_file
from .build import BuildError, build, for_notebooks
from .chapter import ChapterError
from .execute import execute
from .executed import contents, pictures
from .runs import PRESETS, RunsError

app = typer.Typer(
    help="Build the book, run its chapters, get its data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="The data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Preset = StrEnum("Preset", PRESETS)
PresetOption = Annotated[Preset, typer.Option(help="How large: seconds, two cores, or the paper's sizes.")]


@app.command("build")
def build_command(
    preset: PresetOption = Preset.laptop,
    output: Annotated[Path, typer.Option(help="Folder for executed notebooks and pages.")] = Path("_build"),
    force: Annotated[bool, typer.Option(help="Execute every run again.")] = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time; by default one a core, 4 at most.")] = None,
) -> None:
    """Execute the runs of chapters/runs.yml that are not cached, and render the book."""
    started = time.monotonic()
    page = build(_root(), output.resolve(), preset, _say, force, jobs)
    typer.echo(f"The book: {page}  ({time.monotonic() - started:.0f} s, preset {preset})")


@app.command("run")
def run_command(
    run: Annotated[str, typer.Argument(help="A chapter, or any run of chapters/runs.yml.")],
    parameter: Annotated[list[str], typer.Option("--parameter", "-p", help="name=value, as often as needed.")] = [],  # noqa: B006
    preset: PresetOption = Preset.laptop,
    output: Annotated[Path | None, typer.Option(help="Where to write the executed notebook.")] = None,
    figures: Annotated[Path | None, typer.Option(help="Folder to which its figures are written, as SVG.")] = None,
) -> None:
    """Execute one chapter with other parameters and say what came of its claims."""
    root = _root()
    runs = runs_file.load(root / "chapters")
    if run not in runs:
        raise ParameterError(f"run = {run!r}: allowed are {', '.join(runs)}")
    chapter = runs[run].chapter
    for folder in (output and output.parent, figures):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    values = chapter.resolve({**runs[run].settings[preset], **chapter.read(parameter)})
    made_with = "own parameters" if parameter else preset
    with environment(for_notebooks(root / "_build")):
        result = execute(run, chapter, values, made_with, root / "_build" / "runs")
    if result.notebook is None:
        raise BuildError(result.missing_data or result.failure)
    for content in contents(result.notebook, "claims"):
        for claim in content["claims"].values():
            typer.echo(f"{claim['verdict']:>15}  {claim['statement']}: {claim['ours']}")
    if figures is not None:
        for figure in pictures(result.notebook):
            (figures / f"{figure.name}.svg").write_text(_opaque(figure.svg), encoding="utf-8")
    path = result.path
    if output is not None:
        path = Path(shutil.copy(result.path, output))
    typer.echo(f"The executed notebook: {path}{' (cached)' if result.cached else ''}")


@data_app.command("status")
def data_status() -> None:
    """Say for each data set whether it is here, and how to get it."""
    for status in data.status():
        where = f"at {status.where}" if status.available else status.how
        typer.echo(f"{status.name:<16} {'available' if status.available else 'missing':<10} {where}")


@data_app.command("fetch")
def data_fetch(name: Annotated[str, typer.Argument(help="For example cifar-10.")]) -> None:
    """Get a data set now, so that later work needs no network."""
    try:
        typer.echo(f"{name}: at {data.fetch(name)}")
    except ValueError as error:
        raise ParameterError(str(error)) from None


def _opaque(svg: str) -> str:
    """With a white ground, so that the dark ink can be read wherever the file is shown."""
    return re.sub(r"(<svg[^>]*>)", r'\1<rect width="100%" height="100%" fill="white"/>', svg, count=1)


def _say(line: str) -> None:
    typer.echo(line)


def _root() -> Path:
    """The project's folder: this one or the nearest above it that has chapters/runs.yml."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "chapters" / "runs.yml").exists():
            return folder
    raise ParameterError(
        f"{here}: neither this folder nor one above it has chapters/runs.yml; go to the project's folder"
    )


def main() -> None:
    try:
        app()
    except (BuildError, ChapterError, ParameterError, RunsError, data.DataError, OSError) as error:
        typer.echo(f"catapults: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
