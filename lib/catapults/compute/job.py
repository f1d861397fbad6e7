"""A folder with experiments and exactly the tensors that they draw, for a machine that has only the library.

``experiments.json`` lists them in order of worth; ``tensors/`` holds the data, ``needs/`` results that some start from,
and ``results/`` what was computed.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import data
from ..experiments import Experiment
from ..experiments.kinds import KINDS, restored
from . import draws, files, record, store
from .atomic import written
from .made import Made
from .processes import environment
from .sweep import Results, look_up, sweep

_LIST, _README = "experiments.json", "README.txt"


def line(folder: Path, hours: float | None = None) -> str:
    """What to type on the other machine, beside the job."""
    return f"python -m catapults.compute {folder.name} --hours {hours or 2:g}"


def pack(
    experiments: Sequence[Experiment],
    folder: Path,
    device: str = "auto",
    hours: float | None = None,
    again: bool = False,
) -> tuple[list[Experiment], dict[str, str]]:
    """Write a job for those of the experiments whose results are not here, in their order.

    ``hours``: what the line in its README says; ``again``: pack what the record has from other code, too. Returns these
    experiments, and why others of them could not be packed, by the names of data sets that cannot be had.
    """
    every = {experiment.key: experiment for experiment in experiments}
    found = look_up(list(every.values()), device, again)
    absent = [experiment for key, experiment in every.items() if key not in found]
    needs = [need for experiment in absent for need in experiment.needs]
    have = look_up([need for need in needs if need.key not in every], device, again)
    listed = {e.key: e for a in absent for e in (*(n for n in a.needs if n.key not in have | found), a)}
    refused: dict[str, str] = {}
    for key, experiment in list(listed.items()):
        source = str(draws.dataset(experiment))
        try:
            if source not in refused:
                draws.pack(experiment, folder)
        except data.DataError as error:
            refused[source] = str(error)
        if source in refused:
            del listed[key]
    with environment({record.FOLDER: str(folder / "needs")}):
        wanted = {need.key for need in needs}
        record.take((o.experiment, o.result, o.made) for key, o in (have | found).items() if key in wanted)
    entries = [
        {"class": type(e).__name__, "experiment": e.model_dump(mode="json", exclude_defaults=True), "key": e.key}
        for e in listed.values()
    ]
    written(folder / _LIST, json.dumps(entries, indent=1).encode())
    words = f"In a Python with the library catapults and its dependencies:\n\n    {line(folder, hours)}\n"
    written(folder / _README, words.encode())
    return [experiment for experiment in absent if experiment.key in listed], refused


def run(folder: Path, hours: float | None = None, device: str = "auto", processes: int | None = None) -> Results:
    """Compute what is missing of a job, in its order, until the time is over; the next call goes on from there.

    Raises ``ValueError`` for a folder that is no job.
    """
    experiments = _listed(folder)
    places = {
        draws.FOLDER: str(folder.absolute()),
        store.FOLDER: str((folder / "results").absolute()),
        record.FOLDER: str((folder / "needs").absolute()),
    }
    with environment(places):
        return sweep(experiments, device=device, processes=processes, hours=hours, in_order=True, progress=True)


def results(folder: Path) -> Iterator[tuple[Experiment, Any, Made]]:
    """What was computed of a job, or is in a folder of results; not of experiments of a person's own.

    Raises :class:`.files.Damaged`, and ``ValueError`` for a folder that is neither.
    """
    place = folder / "results" if (folder / _LIST).exists() else folder
    paths = sorted(place.glob("*.result"))
    if not paths and place == folder:
        raise ValueError(f"{folder}: no job and no results; allowed are a folder made by --pack, and one of results")
    for path in paths:
        about = files.about(path)
        try:
            experiment = restored(about["class"], about["experiment"]) if about["class"] in KINDS else None
        except (KeyError, TypeError, ValueError) as error:
            raise files.Damaged(f"{path}: does not say what was computed ({type(error).__name__}: {error})") from None
        if experiment is None:
            continue
        if experiment.key != about.get("experiment_key"):
            raise files.Damaged(f"{path}: its experiment is not the one that it was computed for; compute it again")
        result, about = files.read(path, experiment.Result)
        yield experiment, result, about["made"]


def _listed(folder: Path) -> list[Experiment]:
    try:
        entries = json.loads((folder / _LIST).read_text(encoding="utf-8"))
        experiments = [restored(entry["class"], entry["experiment"]) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder}: no job ({error}); allowed is a folder made by catapults compute --pack") from None
    for experiment, entry in zip(experiments, entries, strict=True):
        if experiment.key != entry["key"]:
            raise ValueError(f"{folder}: {experiment.name} was packed by another version of the library; pack it again")
    return experiments
