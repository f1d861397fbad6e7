"""The data that an experiment draws: from the data sets of this machine, or from a job folder that holds just these."""

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from .. import data
from ..experiments import Experiment, Network
from ..experiments.descent import Restart
from ..experiments.fits import Fit, StrongModel
from ..experiments.recurrence import Recurrence
from .atomic import written

FOLDER = "CATAPULTS_JOB"  # names a job folder
_SETS = ("train", "validation", "test")


def arguments(experiment: Experiment) -> dict[str, Any] | None:
    """What :func:`catapults.data.load` is to be called with; ``None`` for an experiment without data."""
    e = experiment
    if isinstance(e, Restart):
        return arguments(e.of)
    if not isinstance(e, Network | StrongModel):
        return None
    drawn = {"name": e.dataset, "n_train": e.n_train, "seed": e.seed, "labels": e.labels, "image_size": e.image_size}
    if isinstance(e, Fit | StrongModel):
        drawn |= {"n_validation": e.n_validation, "n_test": e.n_test}
    if isinstance(e, Recurrence):
        drawn |= {"n_test": e.n_test}
    if isinstance(e, Fit) and not data.is_synthetic(e.dataset):
        drawn |= {"label_noise": e.label_noise}
    return drawn


def dataset(experiment: Experiment) -> str | None:
    """The name of the data set that it draws from."""
    drawn = arguments(experiment)
    return getattr(experiment, "dataset", None) if drawn is None else drawn["name"]


def source(experiment: Experiment) -> str:
    """What :func:`identity` depends on."""
    return repr(arguments(experiment)) if os.environ.get(FOLDER) else str(dataset(experiment))


def identity(experiment: Experiment) -> str:
    """Of the data set that it draws from, here or where it was packed. Raises the errors of
    :func:`catapults.data.identity`."""
    name, folder = dataset(experiment), os.environ.get(FOLDER)
    if name is None:
        return "none"
    if folder and (drawn := arguments(experiment)) is not None:
        with _packed(Path(folder), drawn) as file:
            return json.loads(file["words"].item())["identity"]
    return data.identity(name)


def draw(experiment: Experiment) -> Any:
    """The task. Raises the errors of :func:`catapults.data.load`."""
    drawn = arguments(experiment)
    if drawn is None:
        return None
    if folder := os.environ.get(FOLDER):
        return _unpacked(Path(folder), drawn)
    return data.load(**drawn)


def pack(experiment: Experiment, folder: Path) -> None:
    """Put the tensors that it draws into a job folder, where they are not there yet."""
    drawn = arguments(experiment)
    if drawn is None or _place(folder, drawn).exists():
        return
    task = data.load(**drawn)
    arrays = {}
    for name in _SETS:
        split = getattr(task, name)
        arrays |= {f"{name}_inputs": split.inputs.numpy(), f"{name}_targets": split.targets.numpy()}
    if task.egop is not None:
        arrays["egop"] = task.egop.numpy()
    words = {"name": task.name, "source": task.source, "identity": task.identity}
    packed = io.BytesIO()
    np.savez_compressed(packed, words=np.array(json.dumps(words)), **arrays)
    written(_place(folder, drawn), packed.getvalue())


def _place(folder: Path, drawn: dict[str, Any]) -> Path:
    return folder / "tensors" / f"{hashlib.sha256(json.dumps(drawn, sort_keys=True).encode()).hexdigest()[:16]}.npz"


def _packed(folder: Path, drawn: dict[str, Any]) -> Any:
    """The open file of a task in a job folder. Raises :class:`catapults.data.DataUnavailable`."""
    try:
        return np.load(_place(folder, drawn), allow_pickle=False)
    except FileNotFoundError:
        raise data.DataUnavailable(f"{drawn['name']}: {folder} does not hold what this experiment draws") from None


def _unpacked(folder: Path, drawn: dict[str, Any]) -> Any:
    import torch

    with _packed(folder, drawn) as file:
        tensors = {name: torch.from_numpy(file[name]) for name in file.files if name != "words"}
        words = json.loads(file["words"].item())
    splits = (data.Split(tensors[f"{name}_inputs"], tensors[f"{name}_targets"]) for name in _SETS)
    return data.Task(words["name"], *splits, tensors.get("egop"), words["source"], words["identity"])
