"""Small experiments for the tests of sweeps, in a module that other processes can import: most need no PyTorch."""

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Optional

import numpy as np
from catapults.compute import fingerprint
from catapults.experiments import Experiment
from catapults.experiments.descent import GradientDescent, Restart

NETWORK = {
    "dataset": "rank-2", "architecture": "fcn", "depth": 3, "width": 32, "norm": None, "image_size": None, "n_train": 8,
    "labels": "zero-one", "parameterization": "ntk", "gain": 1.0, "bias": False, "seed": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Walked:
    path: np.ndarray
    threads: str
    diverged: bool
    resumed: int


class Walk(Experiment):
    """A random walk. ``start``: another one, from whose end it starts; ``marks``: a folder in which each run leaves a
    file with the id of its process; ``deed``: what it does besides; ``dataset``: one that has to be there."""

    Result: ClassVar[type] = Walked

    seed: int = 0
    start: Optional["Walk"] = None
    marks: str = ""
    deed: str = ""
    dataset: str | None = None

    @property
    def name(self) -> str:
        return f"{self.deed or 'plain'}, seed {self.seed}"

    @property
    def needs(self) -> tuple[Experiment, ...]:
        return () if self.start is None else (self.start,)

    def compute(
        self, task: Any, needed: tuple[Any, ...], device: str, progress: bool = False, checkpoint: Any = None
    ) -> Walked:
        begin = needed[0].path[-1] if needed else 0.0
        resumed = 0
        if self.marks:
            number = len(list(Path(self.marks).glob(f"{self.name}.*")))
            Path(self.marks, f"{self.name}.{number}").write_text(str(os.getpid()))
            resumed = getattr(self, f"_{self.deed or 'nothing'}")(number, checkpoint) or 0
        path = begin + np.random.default_rng(self.seed).standard_normal(10).cumsum()
        return Walked(path, os.environ.get("OMP_NUM_THREADS", "all"), self.seed == 13, resumed)

    def _nothing(self, number: int, checkpoint: Any) -> None:
        pass

    def _raise(self, number: int, checkpoint: Any) -> None:
        raise ValueError("as it was told")

    def _err(self, number: int, checkpoint: Any) -> None:
        raise RuntimeError("nobody expected that")

    def _die(self, number: int, checkpoint: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _wait_to_die(self, number: int, checkpoint: Any) -> None:
        """The first time, until somebody kills the process."""
        if number == 0:
            time.sleep(600)

    def _interrupt(self, number: int, checkpoint: Any) -> None:
        if number == 0:
            raise KeyboardInterrupt

    def _die_halfway(self, number: int, checkpoint: Any) -> int:
        """Unless there is a state to go on from, after it was kept."""
        state = checkpoint.load()
        if state is None:
            checkpoint.save({"step": 5})
            os.kill(os.getpid(), signal.SIGKILL)
        return state["step"]

    def _take_long(self, number: int, checkpoint: Any) -> int:
        """The first time, until the time is over."""
        while number == 0:
            if checkpoint.due():
                checkpoint.save({"step": 7})
            time.sleep(0.01)
        return checkpoint.load()["step"]


class OtherResult(Walk):
    """What it computes is not what it says."""

    Result: ClassVar[type] = Experiment


def descents(*rates: str) -> list[Experiment]:
    """Trainings of a small network with these rates, and a restart of the first."""
    measured = {"steps": 6, "top": 2, "hessian_every": None}
    trained = [GradientDescent.create(**NETWORK, **measured, learning_rate=rate) for rate in rates]
    return [*trained, Restart(of=trained[0], steps=4)]


def runs(marks: Path) -> list[str]:
    """The names of the experiments that began, once for each time."""
    return sorted(path.name.rpartition(".")[0] for path in Path(marks).iterdir())


def pretend(version: str | None) -> None:
    """Make this process say that it has another version of PyTorch; ``None``: the true one again."""
    if version is None:
        fingerprint.dependencies = _true_dependencies
    else:
        fingerprint.dependencies = lambda: _true_dependencies() | {"torch": version}


_true_dependencies = fingerprint.dependencies


def set_environment(values: Mapping[str, str]) -> None:
    os.environ.update(values)
