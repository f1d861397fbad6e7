"""The results that the published book shows: small files in the repository, found by experiment alone."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..data.folders import named
from ..experiments import Experiment
from . import files, fingerprint, store
from .made import Made
from .trainings import source_of

FOLDER = "CATAPULTS_RECORD"
LIMIT = 12 * 2**20  # bytes of all files together
State = Literal["current", "behind", "superseded", "missing"]


@dataclass(frozen=True)
class Entry:
    """How an experiment stands in the record, and why."""

    name: str
    state: State
    changed: tuple[str, ...] = ()  # modules, for ``behind``
    path: Path | None = None
    made: Made = field(default_factory=dict)

    @property
    def reason(self) -> str:
        return {
            "current": "computed by the code that is here",
            "behind": f"computed before these modules changed: {', '.join(self.changed)}",
            "superseded": "no run asks for it",
            "missing": "not computed",
        }[self.state]


def folder() -> Path | None:
    """``CATAPULTS_RECORD``, or the folder ``record`` of the project that this process is in; ``None`` elsewhere."""
    if given := named(FOLDER):
        return given
    here = Path.cwd()
    return next((f / "record" for f in (here, *here.parents) if (f / "chapters" / "runs.yml").exists()), None)


def path(experiment: Experiment) -> Path | None:
    """Where its result lies, if it is in the record."""
    place = folder()
    return place and place / f"{type(experiment).__name__}-{experiment.key[:20]}.result"


def load(experiment: Experiment) -> tuple[Any, Made] | None:
    """The result and what made it; ``None`` where there is none. Raises :class:`.files.Damaged`."""
    place = path(experiment)
    if place is None or not place.exists():
        return None
    result, about = files.read(place, experiment.Result)
    if about["experiment_key"] != experiment.key:
        raise files.Damaged(f"{place}: holds another experiment, {about['name']}; get it back from git")
    return result, about["made"]


def entry(experiment: Experiment) -> Entry:
    """Its state: current, behind or missing. Raises :class:`.files.Damaged`."""
    place = path(experiment)
    if place is None or not place.exists():
        return Entry(experiment.name, "missing")
    made = files.about(place)["made"]
    changed = behind(experiment, made)
    return Entry(experiment.name, "behind" if changed else "current", changed, place, made)


def behind(experiment: Experiment, made: Made) -> tuple[str, ...]:
    """The modules whose code has changed since."""
    return tuple(fingerprint.changed(made["modules"], _modules_now(source_of(experiment))))


@functools.lru_cache(16)
def _modules_now(source: Path) -> dict[str, str]:
    return fingerprint.modules(source)


def status(wanted: Iterable[Experiment]) -> list[Entry]:
    """Of every experiment that is wanted and, as superseded, of every other file. Raises :class:`.files.Damaged`."""
    _modules_now.cache_clear()
    different = {experiment.key: experiment for experiment in wanted}
    entries = [entry(experiment) for experiment in different.values()]
    asked = {e.path for e in entries}
    for place in sorted((folder() or Path("/nonexistent")).glob("*.result")):
        if place not in asked:
            about = files.about(place)
            entries.append(Entry(about["name"], "superseded", (), place, about["made"]))
    return entries


def add(experiments: Iterable[Experiment], device: str) -> tuple[int, list[Experiment]]:
    """Take the results of these over from the store. Returns how many were new, and those that are in neither.

    Raises ``ValueError`` where the record would exceed its limit: then nothing is taken.
    """
    found, absent = {}, []
    for experiment in experiments:
        kept = store.load(experiment, store.key(experiment, device))
        if kept is None:
            if entry(experiment).state == "missing":
                absent.append(experiment)
            continue
        found[experiment.key] = experiment, *kept
    return take(found.values()), absent


def take(results: Iterable[tuple[Experiment, Any, Made]]) -> int:
    """Write results into the record, but those that it holds from the same code. Returns how many."""
    new = 0
    for experiment, result, made in results:
        place = path(experiment)
        if place is None:
            raise ValueError("record: this is not in a project; go to its folder, or set CATAPULTS_RECORD")
        if place.exists() and files.about(place)["made"]["modules"] == made["modules"]:
            continue
        files.write(place, result, store.about(experiment, made), single=True)
        new += 1
    size = sum(place.stat().st_size for place in (folder() or Path()).glob("*.result"))
    if size > LIMIT:
        raise ValueError(f"record: {size / 2**20:.1f} MiB; allowed are {LIMIT / 2**20:.0f} MiB")
    return new
