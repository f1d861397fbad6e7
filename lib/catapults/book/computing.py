"""The commands that compute, and those of the record: ``catapults compute``, ``catapults record …``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from .. import devices, paper
from ..compute import job, record, store, verify
from ..compute.made import commit
from ..compute.processes import environment
from ..compute.sweep import sweep
from ..display import number
from ..experiments import Experiment, Page, ParameterError
from . import runs as runs_file
from .project import refusals, root
from .runs import Run

record_app = typer.Typer(help="The results that the published book shows.", no_args_is_help=True)

RunsArgument = Annotated[list[str] | None, typer.Argument(help="Runs of chapters/runs.yml; by default all.")]
PresetOption = Annotated[str, typer.Option(help="The sizes: book, laptop, paper or smoke.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]


def compute(
    runs: RunsArgument = None,
    preset: PresetOption = "book",
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds; by default as the preset says.")] = None,
    hours: Annotated[
        float | None, typer.Option(help="After so many hours nothing new starts, and long trainings pause.")
    ] = None,
    scheduler: Annotated[str | None, typer.Option(help="Address of a Dask cluster, tcp://HOST:PORT.")] = None,
    device: DeviceOption = "auto",
    again: Annotated[bool, typer.Option(help="Also recompute recorded results that other code made.")] = False,
    pack: Annotated[Path | None, typer.Option(help="Only write a job for another machine to this folder.")] = None,
) -> None:
    """Train what is missing of some runs, or of all, the longest first; results that exist are kept."""
    pages = _pages(runs, preset, seeds)
    experiments = _different(pages.values())
    with environment(_results()), refusals():
        if pack is not None:
            packed, refused = job.pack(experiments, pack, device, hours, again)
            for reason in refused.values():
                typer.echo(f"left out: {reason}", err=True)
            typer.echo(f"{pack}: {len(packed)} of {len(experiments)} trainings to do. On the other machine:")
            typer.echo(f"  {job.line(pack, hours)}\nand then, here:\n  catapults record add {pack}")
            if refused:
                raise typer.Exit(1)
            return
        results = sweep(
            experiments,
            device=device,
            scheduler=scheduler,
            hours=hours,
            again=again,
            progress=True,
        )
    typer.echo(results.describe())
    if any(not outcome.unfinished for outcome in results.failures):
        raise typer.Exit(1)


@record_app.command("status")
def status(
    runs: RunsArgument = None,
    reasons: Annotated[bool, typer.Option(help="Say why, for each result that is not current.")] = False,
) -> None:
    """Say for each run how many of its results are current, behind or missing, and which files no run asks for."""
    every = _pages(None, "book", None)
    pages = _pages(runs, "book", None) if runs else every
    for name, page in pages.items():
        entries = [record.entry(experiment) for experiment in _different([page])]
        if not entries:
            continue
        counts = {state: sum(e.state == state for e in entries) for state in ("current", "behind", "missing")}
        typer.echo(f"{name:<32} " + ", ".join(f"{count} {state}" for state, count in counts.items() if count))
        for e in entries if reasons else ():
            if e.state != "current":
                typer.echo(f"    {e.name}: {e.state}, {e.reason}")
    entries = record.status(_different(every.values()))
    for e in entries:
        if e.state == "superseded":
            typer.echo(f"superseded: {e.path.name}, {e.name}: {e.reason}")
    counts = {state: sum(e.state == state for e in entries) for state in ("current", "behind", "superseded", "missing")}
    size = sum(e.path.stat().st_size for e in entries if e.path)
    typer.echo(f"In all: {', '.join(f'{n} {state}' for state, n in counts.items())}; {size / 2**20:.1f} MiB.")


@record_app.command("show")
def show(run: Annotated[str, typer.Argument(help="A run of chapters/runs.yml.")]) -> None:
    """List the results of a run: what made them, when, how long it took."""
    for experiment in _different(_pages([run], "book", None).values()):
        e = record.entry(experiment)
        made = e.made
        typer.echo(f"{e.state:<8} {e.name}")
        if made:
            typer.echo(f"         {made['date']}, {made['seconds']:.1f} s on {made['device']}, commit {made['commit']}")
        if e.state == "behind":
            typer.echo(f"         {e.reason}")


@record_app.command("add")
def add(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Jobs or folders of results; by default this machine's store.")
    ] = None,
    prune: Annotated[bool, typer.Option(help="Delete recorded results that no run asks for.")] = False,
    device: DeviceOption = "auto",
) -> None:
    """Copy results of the runs' experiments into the record, from the store or from jobs."""
    wanted = _different(_pages(None, "book", None).values())
    keys = {experiment.key for experiment in wanted}
    if prune:  # first, since the record has a limit
        for e in record.status(wanted):
            if e.state == "superseded":
                e.path.unlink()
    if folders:
        with refusals():
            new = sum(record.take(found for found in job.results(folder) if found[0].key in keys) for folder in folders)
        absent = [e for e in wanted if record.entry(e).state == "missing"]
    else:
        with environment(_results()), refusals():
            new, absent = record.add(wanted, device)
    typer.echo(f"{new} result{'s' * (new != 1)} copied into the record; {len(absent)} of {len(wanted)} are missing.")


@record_app.command("verify")
def verify_command(
    runs: Annotated[list[str] | None, typer.Argument(help="Runs of chapters/runs.yml; by default all.")] = None,
    minutes: Annotated[float, typer.Option(help="How long to train.")] = 3.0,
    processes: Annotated[int, typer.Option(min=1, help="How many trainings at a time.")] = 2,
    device: DeviceOption = "cpu",
) -> None:
    """Train a selection of the record again, another one for each commit, and compare numbers and verdicts."""
    if not minutes > 0:
        raise ParameterError(f"minutes = {minutes}: allowed are positive numbers")
    with refusals():
        devices.name_of(device)
    pages = _pages(runs, "book", None)
    picked = verify.chosen(_different(pages.values()), 60 * minutes, commit(), processes)
    if not picked:
        typer.echo(f"No recorded training takes less than {minutes:g} minutes: none is computed again.")
        return
    done = verify.in_time(verify.verify(picked, device, processes), minutes, _say_comparison)
    changed = [line for page in pages.items() for line in _changed_verdicts(*page, done)]
    for line in changed:
        typer.echo(line)
    again = [c for c in done if not c.lacks_data]
    wrong = sum(not c.same for c in again)
    typer.echo(
        f"{len(again)} trainings computed again: {len(again) - wrong} agree within {verify.TOLERANCE:g} in their first "
        f"{verify.EARLY} iterations, {wrong} do not; {len(changed)} verdicts differ."
        + (f" Data sets of {len(done) - len(again)} others cannot be had here." if len(again) < len(done) else "")
    )
    if wrong:
        raise typer.Exit(1)


def _say_comparison(c: verify.Comparison) -> None:
    if c.lacks_data:
        typer.echo(f"no data  {c.experiment.name}")
        return
    what = c.failure or ("other data were drawn" if not c.drawn else f"largest difference {number(c.difference)}")
    typer.echo(f"{'same' if c.same else 'DIFFERS':<8} {c.experiment.name}: {what}")


def _changed_verdicts(name: str, page: Page, done: Sequence[verify.Comparison]) -> list[str]:
    """Where the claims of a page are judged otherwise with what was computed now."""
    computed = {c.experiment.key: c.result for c in done if c.same}
    own = page.experiments()
    if not any(e.key in computed for e in own):
        return []
    then = {e: kept[0] for e in own if (kept := record.load(e)) is not None}
    if len(then) < len({e.key for e in own}):
        return []
    now = {e: computed.get(e.key, result) for e, result in then.items()}
    before, after = (paper.judge(page, results) for results in (then, now))
    return [
        f"verdict  {name}, {claim.statement}: {claim.verdict} in the record, {after[key].verdict} now"
        for key, claim in before.items()
        if claim.verdict != after[key].verdict
    ]


def _pages(names: Sequence[str] | None, preset: str, seeds: int | None) -> dict[str, Page]:
    """The pages of some runs, or of all. Raises :class:`ParameterError` for an unknown run or preset."""
    if preset not in runs_file.PRESETS:
        raise ParameterError(f"preset = {preset!r}: allowed are {', '.join(runs_file.PRESETS)}")
    runs: Mapping[str, Run] = runs_file.load(root() / "chapters")
    for name in names or ():
        runs_file.check_name(name, runs)
    pages = {name: runs[name].page(preset) for name in names or runs}
    return pages if seeds is None else {name: page.with_seeds(seeds) for name, page in pages.items()}


def _different(pages) -> list[Experiment]:
    return list({e.key: e for page in pages for e in page.experiments()}.values())


def _results() -> dict[str, str]:
    return {store.FOLDER: str(store.folder(root() / "_build" / "results"))}
