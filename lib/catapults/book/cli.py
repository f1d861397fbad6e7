"""The command ``catapults``."""

import re
import shutil
import sys
import time
import webbrowser
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .. import data
from ..compute import ComputationFailed, estimate
from ..compute.files import Damaged
from ..compute.processes import environment
from ..compute.sweep import look_up
from ..experiments import ParameterError
from ..paper import Claim
from . import computing
from . import runs as runs_file
from .build import BuildError, build, for_notebooks
from .chapter import ChapterError
from .execute import run_one
from .executed import figures as figures_of
from .project import refusals, root
from .runs import PRESETS, Run, RunsError
from .sheets import Sheet, sheet_of

app = typer.Typer(
    help="Build the book, run its chapters, get its data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="The data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(computing.record_app, name="record")
app.command("compute")(computing.compute)

ERRORS = (BuildError, ChapterError, ComputationFailed, Damaged, ParameterError, RunsError)  # whose message is enough
OWN = "own parameters"  # takes the place of a preset's name
Preset = StrEnum("Preset", PRESETS)
PresetOption = Annotated[
    Preset,
    typer.Option(
        help="smoke: seconds, for tests; laptop: sizes that two cores can train; book: as published, with recorded "
        "results; paper: the paper's sizes."
    ),
]


@app.command("build")
def build_command(
    preset: PresetOption = Preset.book,
    output: Annotated[Path, typer.Option(help="Folder for results, executed notebooks and pages.")] = Path("_build"),
    force: Annotated[bool, typer.Option(help="Execute every notebook again.")] = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="Notebooks at a time; by default one per core.")] = None,
) -> None:
    """Build the book: train what is missing, execute the notebooks that are not cached, render the pages."""
    started = time.monotonic()
    page = build(root(), output.resolve(), preset.value, _say, force, jobs)
    typer.echo(f"The book: {page}  ({time.monotonic() - started:.0f} s, preset {preset})")


@app.command("run")
def run_command(
    run: Annotated[str, typer.Argument(help="A chapter, or any run of chapters/runs.yml.")],
    parameter: Annotated[list[str], typer.Option("--parameter", "-p", help="name=value, as often as needed.")] = [],  # noqa: B006
    preset: PresetOption = Preset.book,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="How many; by default the preset's, one with parameters of your own.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Where to write the executed notebook.")] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Folder to which its figures are written, as SVG and PNG.")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Show it beside the book's run, in a browser.")] = False,
) -> None:
    """Execute one chapter, with other parameters if you like, and print the verdicts on its claims."""
    project = root()
    runs = runs_file.load(project / "chapters")
    runs_file.check_name(run, runs)
    for folder in (output and output.parent, figures):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    mine = with_own(runs[run], preset.value, parameter, seeds)
    chosen = OWN if OWN in mine.settings else preset.value
    page = mine.page(chosen)
    with environment(for_notebooks(project / "_build")):
        found = look_up(page.experiments(), mine.settings[chosen].get("device", "auto"))
        sheet = sheet_of(mine, chosen, page, found)
        if sheet.values.get("scheduler") is None:
            with refusals():
                for experiment in sheet.absent:
                    estimate.refuse_impossible(experiment, sheet.device)
        sheet = run_one(sheet, project / "_build" / "runs")
    if sheet.notebook is None:
        raise BuildError(sheet.reason)
    beside = in_the_book(runs[run]) if chosen == OWN else {}
    for name, claim in sheet.claims.items():
        held = f" (holds in {claim.seeds})" if claim.seeds else f" ({claim.why})" if claim.why else ""
        typer.echo(f"{sheet.claims.worded(name):>17}  {claim.statement}: {claim.ours}{held}")
        if name in beside:
            typer.echo(f"{'in the book':>17}  {beside_the_book(claim, beside[name])}")
    if figures is not None:
        from . import compare  # which needs matplotlib

        for figure in figures_of(sheet.notebook):
            (figures / f"{figure.name}.svg").write_text(_opaque(figure.svg), encoding="utf-8")
            (figures / f"{figure.name}.png").write_bytes(compare.png(figure.svg))
        typer.echo(f"Its figures: {figures}")
    path = sheet.path
    if output is not None:
        path = Path(shutil.copy(sheet.path, output))
    typer.echo(f"The executed notebook: {path}{' (cached)' if sheet.cached else ''}")
    if open_:
        with environment(for_notebooks(project / "_build")):
            book = _shown(runs[run], project) if chosen == OWN else None
        beside_it = {} if book is None or book.notebook is None else {"the book": book}
        _side_by_side({"your run": sheet} | beside_it, project / "_build" / "compare" / run, True)


@app.command("compare")
def compare_command(
    runs: Annotated[list[str], typer.Argument(help="Two runs of chapters/runs.yml, or more.")],
    preset: PresetOption = Preset.book,
    open_: Annotated[bool, typer.Option("--open", help="Show the page in a browser.")] = False,
) -> None:
    """Put runs side by side on one page: what differs, their curves, figures and claims; numbers as CSV."""
    project = root()
    every = runs_file.load(project / "chapters")
    for run in runs:
        runs_file.check_name(run, every)
    if len(set(runs)) < 2:
        raise ParameterError(f"runs = {' '.join(runs)}: allowed are two or more that differ")
    with environment(for_notebooks(project / "_build")):
        sheets = {run: _shown(every[run], project, preset.value) for run in dict.fromkeys(runs)}
    for sheet in sheets.values():
        if sheet.notebook is None:
            raise BuildError(f"{sheet.run.name}: {sheet.state}. {sheet.reason}")
    _side_by_side(sheets, project / "_build" / "compare" / "-and-".join(sheets), open_)


def _shown(run: Run, project: Path, preset: str = "book") -> Sheet:
    """The run as the book shows it, with its notebook where its results are here."""
    page = run.page(preset)
    sheet = sheet_of(run, preset, page, look_up(page.experiments()))
    return run_one(sheet, project / "_build" / "runs") if sheet.complete else sheet


def _side_by_side(sheets: Mapping[str, Sheet], folder: Path, show: bool) -> None:
    from . import compare  # which needs matplotlib

    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "index.html"
    page.write_text(compare.page(sheets), encoding="utf-8")
    (folder / "curves.csv").write_text(compare.numbers(sheets), encoding="utf-8")
    (folder / "claims.csv").write_text(compare.verdicts(sheets), encoding="utf-8")
    if drawn := compare.over_each_other(sheets):
        (folder / "curves.svg").write_text(_opaque(drawn.svg), encoding="utf-8")
        (folder / "curves.png").write_bytes(compare.png(drawn.svg))
    typer.echo(f"Side by side, with the numbers as CSV: {page}")
    if show:
        webbrowser.open_new_tab(page.as_uri())


def in_the_book(run: Run) -> Mapping[str, Claim]:
    """The claims of the run as the book shows it; none where some of its results are not here."""
    page = run.page("book")
    return sheet_of(run, "book", page, look_up(page.experiments())).claims


def beside_the_book(own: Claim, book: Claim) -> str:
    """What the book has of a claim, and whether a number of one's own lies where that of one more seed should."""
    text = f"{book.verdict}, {book.ours}" + (f" (holds in {book.seeds})" if book.seeds else "")
    if own.value is None or book.one_more is None:
        return text
    low, high = book.one_more
    form = book.unit.partition("}")[0] + "}"
    where = "in" if low <= own.value <= high else "outside of"
    return f"{text}; yours is {where} the interval for one more seed, {form.format(low)} to {form.format(high)}"


def with_own(run: Run, preset: str, assignments: list[str], seeds: int | None) -> Run:
    """The run with parameters of a person's own beside its presets. Raises :class:`ParameterError`."""
    own = run.chapter.read(assignments)
    if seeds is not None:
        if "seeds" not in run.chapter.parameters or "seeds" in own:
            reason = "given with -p, too" if "seeds" in own else f"chapter {run.chapter.name!r} has no seeds"
            raise ParameterError(f"--seeds {seeds}: {reason}; allowed is to leave it out")
        own["seeds"] = run.page(preset).with_seeds(seeds).seeds
    elif own and isinstance(run.settings[preset].get("seeds"), int):
        own = {"seeds": 1} | own
    if not own:
        return run
    values = run.chapter.resolve({**run.settings[preset], **own})
    return replace(run, settings={**run.settings, OWN: values})


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


def main() -> None:
    try:
        app()
    except (*ERRORS, data.DataError, OSError) as error:
        typer.echo(f"catapults: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
