"""What experiments gave, kept on disk: a file for each, under a key of all that it depends on. No pickle is loaded.

Results are computed with one thread, so that they are the same wherever and beside whatever they are computed.
"""

import dataclasses
import fcntl
import hashlib
import json
import os
import secrets
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from . import data, devices, fingerprint, provenance, sources
from .processes import threads

FOLDER = "CATAPULTS_RESULTS"
_ABOUT = "about.json"  # beside the arrays, and no field's name


@runtime_checkable
class Experiment(Protocol):
    """What can be stored: a pydantic model, whose fields are all that it depends on beside code, data and device.

    ``Result``: a frozen dataclass of numpy arrays, numbers, strings, truth values, ``None`` and tuples of these but
    arrays.
    """

    Result: ClassVar[type]
    dataset: str
    device: str

    @property
    def name(self) -> str:
        """For people, and different from those of the other experiments of a sweep."""

    def run(self, progress: bool = False) -> Any:
        """The ``Result``."""

    def model_dump(self, *, mode: str) -> dict[str, Any]: ...


def folder(default: Path | None = None) -> Path:
    """The absolute path of the folder with the results: ``CATAPULTS_RESULTS``, else ``default``, else in the cache."""
    named = os.environ.get(FOLDER)
    return (Path(named).expanduser() if named else default or sources.cache_folder() / "results").absolute()


def surroundings(experiment: Experiment) -> dict[str, Any]:
    """What a result depends on beside the experiment and its data, as it is in this process."""
    return {
        "library": fingerprint.of_module(type(experiment).__module__),
        "dependencies": fingerprint.dependencies(),
        "device": provenance.device_name(str(devices.device(experiment.device)), threads=1),
    }


def key(experiment: Experiment, data_identity: str | None = None) -> str:
    """Changes with everything that can change the result: experiment, library, data, dependencies and device.

    ``data_identity``: that of the experiment's data set, where it is known already. Raises the errors of
    :func:`catapults.data.identity`, and ``ValueError`` for a class that is not defined in a file.
    """
    everything = surroundings(experiment) | {
        "class": type(experiment).__qualname__,
        "experiment": experiment.model_dump(mode="json"),
        "data": data_identity or data.identity(experiment.dataset),
    }
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def path(experiment: Experiment, key: str) -> Path:
    """Where its result lies, if there is one."""
    return folder() / f"{type(experiment).__name__}-{key[:16]}.npz"


def load(experiment: Experiment, under: str | None = None) -> Any:
    """The result that was saved; ``None`` where there is none, or none that can be read.

    ``under``: the key, where it is known already. Raises the errors of :func:`key`.
    """
    under = under or key(experiment)
    try:
        with path(experiment, under).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            about = json.loads(file[_ABOUT].item())
            values = {name: _tuples(value) for name, value in about["values"].items()}
            arrays = {name: file[name] for name in file.files if name != _ABOUT}
        return experiment.Result(**values, **arrays) if about["key"] == under else None
    except Exception:  # of any kind, if the file is damaged
        return None


def save(experiment: Experiment, result: Any, under: str | None = None) -> None:
    """Keep a result, at once or not at all; where the folder cannot be written, a warning says so.

    ``under``: the key when the run began. Raises the errors of :func:`key` and :func:`check`.
    """
    under = under or key(experiment)
    check(experiment, result)
    values = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    about = {
        "name": experiment.name,
        "experiment": experiment.model_dump(mode="json"),
        "key": under,
        "values": {name: value for name, value in values.items() if name not in arrays},
    }
    place = path(experiment, under)
    unfinished = place.with_suffix(f".{secrets.token_hex(4)}.tmp")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            with unfinished.open("wb") as file:
                np.savez(file, **arrays, **{_ABOUT: np.array(json.dumps(about))})
            unfinished.replace(place)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(f"{place}: the result of {experiment.name} could not be kept: {error}", stacklevel=2)


def check(experiment: Experiment, result: Any) -> None:
    """Raise ``TypeError`` unless this is a result of the experiment that can be stored."""
    kind = experiment.Result
    if type(result) is not kind:
        raise TypeError(f"result: {type(result).__name__}; allowed is {kind.__qualname__}")
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        if not (_is_plain(value) or (type(value) is np.ndarray and not value.dtype.hasobject)):
            allowed = "numpy arrays, float, int, bool, str, None and tuples of these but arrays"
            raise TypeError(f"{kind.__qualname__}.{field.name} = {value!r}: allowed are {allowed}")


def obtain(experiment: Experiment, progress: bool = False) -> Any:
    """The result: from the store, else from running the experiment, which is done once whoever else asks for it now.

    Raises what its run raises, and the errors of :func:`key` and :func:`check`.
    """
    place = key(experiment)
    result = load(experiment, place)
    if result is None:
        with _alone(path(experiment, place)), threads(1):
            result = load(experiment, place)
            if result is None:
                result = experiment.run(progress)
                save(experiment, result, place)
    return result


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Wait until no other process is at work for this place. A file that one has left behind locks nothing."""
    with ExitStack() as stack:
        with suppress(OSError):  # no folder to write to, or without locks: everyone for themselves
            place.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context(place.with_suffix(".lock").open("w")), fcntl.LOCK_EX)
        yield


def _is_plain(value: Any) -> bool:
    if type(value) is tuple:
        return all(map(_is_plain, value))
    return value is None or type(value) in (float, int, bool, str)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
