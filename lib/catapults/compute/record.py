"""The results that the published book shows: small files in the repository, found by experiment alone."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .. import data
from ..data.folders import named
from ..experiments import Experiment
from ..experiments.causes import Without
from ..experiments.descent import Measured
from ..experiments.fits import Strong
from . import files, fingerprint, store
from .atomic import written
from .made import Made
from .trainings import NotHere, source_of

FOLDER = "CATAPULTS_RECORD"
REST = 0.01  # of the norm of a strong model's AGOP, which the record may lack
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
    return result, _made(place, about, experiment)


def entry(experiment: Experiment) -> Entry:
    """Its state: current, behind or missing. Raises :class:`.files.Damaged`."""
    place = path(experiment)
    if place is None or not place.exists():
        return Entry(experiment.name, "missing")
    made = _made(place, files.about(place), experiment)
    changed = behind(experiment, made)
    return Entry(experiment.name, "behind" if changed else "current", changed, place, made)


def _made(place: Path, about: dict[str, Any], experiment: Experiment) -> Made:
    """What made the result of this experiment. Raises :class:`.files.Damaged` for a file of another one."""
    if about.get("experiment_key") != experiment.key:
        raise files.Damaged(f"{place}: holds another experiment, {about.get('name')}; get it back from git")
    if "modules" not in about.get("made", {}):
        raise files.Damaged(f"{place}: does not say what made it; get it back from git")
    return about["made"]


def behind(experiment: Experiment, made: Made) -> tuple[str, ...]:
    """The modules whose code has changed since; none of timings where nothing here can take them again."""
    try:
        now = fingerprint.modules(source_of(experiment))
    except NotHere:
        return ()
    return tuple(fingerprint.changed(made["modules"], now))


def status(wanted: Iterable[Experiment]) -> list[Entry]:
    """Of every experiment that is wanted and, as superseded, of every other file. Raises :class:`.files.Damaged`."""
    different = {experiment.key: experiment for experiment in wanted}
    entries = [entry(experiment) for experiment in different.values()]
    asked = {e.path for e in entries}
    for place in sorted((folder() or Path("/nonexistent")).glob("*.result")):
        if place not in asked:
            about = files.about(place)
            entries.append(Entry(about.get("name", place.stem), "superseded", (), place, about.get("made", {})))
    return entries


def add(experiments: Iterable[Experiment], device: str) -> tuple[int, list[Experiment]]:
    """Take the results of these over from the store. Returns how many were new, and those that are in neither.

    Raises as :func:`take`.
    """
    found, absent = {}, []
    different = {e.key: e for e in experiments}.values()
    stored = store.perhaps(different)  # of the others no data set is asked for
    for experiment in different:
        try:
            kept = store.load(experiment, store.key(experiment, device)) if experiment.key in stored else None
        except (data.DataError, NotHere):
            kept = None
        if kept is None:
            if entry(experiment).state == "missing":
                absent.append(experiment)
            continue
        found[experiment.key] = experiment, *kept
    return take(found.values()), absent


def _shorter(result: Any) -> Any:
    """What pages show: all but which samples were in which batch, half of a result of SGD, which the seed draws again,
    and the curves of trainings without catapults. Of a strong model's factor the columns without which its AGOP would
    lack more than ``REST`` of its norm, in half precision."""
    if isinstance(result, Measured):
        return replace(result, history=replace(result.history, batches=result.history.batches[:, :0]))
    if isinstance(result, Without):
        return replace(result, **{name: getattr(result, name)[:0] for name in ("curve", "loss", "rate")})
    if isinstance(result, Strong):
        values = np.square(result.factor.astype(float)).sum(0)  # eigenvalues of the AGOP, ascending
        rest = np.sqrt(np.cumsum(values**2) / np.square(values).sum())
        return replace(result, factor=result.factor[:, rest > REST].astype(np.float16))
    return result


def take(results: Iterable[tuple[Experiment, Any, Made]]) -> int:
    """Write results into the record, but those that it holds from the same code or from that which is here.

    Of several results of one experiment, one of the code that is here is taken. Returns how many were written.

    Raises ``ValueError`` where this is no project, or the record would exceed its limit: then nothing is written.
    """
    new: dict[Path, bytes] = {}
    current: set[Path] = set()
    for experiment, result, made in results:
        place = path(experiment)
        if place is None:
            raise ValueError("record: this is not in a project; go to its folder, or set CATAPULTS_RECORD")
        held = _made(place, files.about(place), experiment) if place.exists() else None
        if held is not None and held["modules"] == made["modules"]:
            continue
        if held is not None and not behind(experiment, held):
            current.add(place)
        if not behind(experiment, made):
            current.add(place)
        elif place in current:
            continue
        new[place] = files.packed(_shorter(result), store.about(experiment, made), single=True)
    kept = set((folder() or Path("/nonexistent")).glob("*.result")) - new.keys()
    size = sum(map(len, new.values())) + sum(place.stat().st_size for place in kept)
    if new and size > LIMIT:
        raise ValueError(f"record: {size / 2**20:.1f} MiB; allowed are {LIMIT / 2**20:.0f} MiB")
    for place, content in new.items():
        written(place, content)
    return len(new)
