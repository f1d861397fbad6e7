"""Results on this machine: a file for each, under a key of all that it depends on."""

import hashlib
import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .. import data
from ..data.folders import named
from ..experiments import Experiment
from . import draws, files, fingerprint
from .made import Made, device_name

FOLDER = "CATAPULTS_RESULTS"


def folder(default: Path | None = None) -> Path:
    """The absolute path of the folder with the results: ``CATAPULTS_RESULTS``, else ``default``, else in the cache."""
    return (named(FOLDER) or default or data.cache_folder() / "results").absolute()


def surroundings(source: Path, device: str) -> dict[str, Any]:
    """What a result depends on beside the experiment and its data, as it is in this process.

    ``source``: the file that computes it.
    """
    return {
        "library": fingerprint.modules(source),
        "dependencies": fingerprint.dependencies(),
        "device": device_name(device, threads=1),
    }


def key(experiment: Experiment, device: str, data_identity: str | None = None) -> str:
    """Changes with everything that can change the result: experiment, code, data, dependencies and device.

    ``data_identity``: that of the experiment's data set, where it is known already. Raises the errors of
    :func:`catapults.data.identity` and :func:`surroundings`.
    """
    from .trainings import source_of

    everything = surroundings(source_of(experiment), device) | {
        "experiment": experiment.key,
        "data": data_identity or draws.identity(experiment),
    }
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def path(experiment: Experiment, key: str) -> Path:
    """Where its result lies, if there is one."""
    return folder() / f"{_beginning(experiment)}{key[:16]}.result"


def perhaps(experiments: Iterable[Experiment]) -> set[str]:
    """The keys of those of which there are results, of whatever code, data and device: the others need no key here."""
    place = folder()
    there = {path.name[:-23] for path in place.glob("*.result")} if place.is_dir() else set()
    return {experiment.key for experiment in experiments if _beginning(experiment) in there}


def _beginning(experiment: Experiment) -> str:
    return f"{type(experiment).__name__}-{experiment.key[:16]}-"


def load(experiment: Experiment, key: str) -> tuple[Any, Made] | None:
    """The result that was saved, and what made it; ``None`` where there is none, or none that can be read: a cache."""
    try:
        result, about = files.read(path(experiment, key), experiment.Result)
    except (OSError, files.Damaged):
        return None
    return (result, about["made"]) if about.get("key") == key else None


def save(experiment: Experiment, result: Any, made: Made, key: str) -> bool:
    """Keep a result, at once or not at all; where the folder cannot be written, a warning says so. Returns whether.

    ``key``: that of when the computation began. Raises ``TypeError`` for what is no result of the experiment.
    """
    files.check(experiment.Result, result)
    place = path(experiment, key)
    try:
        files.write(place, result, about(experiment, made) | {"key": key})
    except OSError as error:
        warnings.warn(f"{place}: the result of {experiment.name} could not be kept: {error}", stacklevel=2)
        return False
    return True


def about(experiment: Experiment, made: Made) -> dict[str, Any]:
    """What a file says of the result that it holds."""
    return {
        "name": experiment.name,
        "class": type(experiment).__name__,
        "experiment": experiment.model_dump(mode="json", exclude_defaults=True),
        "experiment_key": experiment.key,
        "made": made,
    }
