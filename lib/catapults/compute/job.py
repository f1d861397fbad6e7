"""A folder with experiments and exactly the tensors that they draw, for a machine that has only the library.

``experiments.json`` lists them in order of worth; ``tensors/`` holds the data, ``needs/`` results that some start from,
and ``results/`` what was computed.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..experiments import Experiment
from ..experiments.kinds import restored
from . import draws, files, record, store
from .atomic import written
from .made import Made
from .processes import environment
from .sweep import Results, look_up, sweep

LINE = "python -m catapults.compute {folder} --hours 2"
_LIST, _README = "experiments.json", "README.txt"


def pack(experiments: Sequence[Experiment], folder: Path, device: str = "auto") -> list[Experiment]:
    """Write a job for those of the experiments whose results are not here, in their order; returns these.

    Raises the errors of :func:`catapults.data.load` where the data cannot be had.
    """
    every = {experiment.key: experiment for experiment in experiments}
    found = look_up(list(every.values()), device)
    absent = [experiment for key, experiment in every.items() if key not in found]
    needs = [need for experiment in absent for need in experiment.needs]
    have = look_up([need for need in needs if need.key not in every], device)
    listed = {e.key: e for a in absent for e in (*(n for n in a.needs if n.key not in have | found), a)}
    for experiment in listed.values():
        draws.pack(experiment, folder)
    with environment({record.FOLDER: str(folder / "needs")}):
        wanted = {need.key for need in needs}
        record.take((o.experiment, o.result, o.made) for key, o in (have | found).items() if key in wanted)
    entries = [
        {"class": type(e).__name__, "experiment": e.model_dump(mode="json", exclude_defaults=True), "key": e.key}
        for e in listed.values()
    ]
    written(folder / _LIST, json.dumps(entries, indent=1).encode())
    line = LINE.format(folder=folder.name)
    written(folder / _README, f"In a Python with the library catapults and its dependencies:\n\n    {line}\n".encode())
    return absent


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
    """What was computed of a job, or is in a folder of results. Raises :class:`.files.Damaged`."""
    place = folder / "results" if (folder / _LIST).exists() else folder
    for path in sorted(place.glob("*.result")):
        about = files.about(path)
        experiment = restored(about["class"], about["experiment"])
        if experiment.key != about["experiment_key"]:
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
