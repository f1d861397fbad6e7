"""Small experiments for the tests of sweeps, in a module that other processes can import."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from catapults import data, fingerprint, models, sgd
from catapults.experiments import Experiment


@dataclass(frozen=True)
class Trained:
    loss: np.ndarray
    weights: np.ndarray
    steps: int
    threads: int
    diverged: bool
    note: str | None
    tops: tuple[int, ...]


class Training(Experiment):
    """SGD with a small network. ``marks``: a folder in which each run leaves a file; ``deed``: what it does besides."""

    Result: ClassVar[type] = Trained

    dataset: str = "rank-2"
    device: str = "cpu"
    seed: int = 0
    learning_rate: str = "1.5 eta_crit"
    marks: str = ""
    deed: str = ""

    @property
    def name(self) -> str:
        return f"{self.deed or 'plain'}, seed {self.seed}"

    def run(self, progress: bool = False) -> Trained:
        if self.marks:
            number = len(list(Path(self.marks).glob(f"{self.name}.*")))
            Path(self.marks, f"{self.name}.{number}").write_text(str(os.getpid()))
            getattr(self, f"_{self.deed or 'nothing'}")(number)
        task = data.load(self.dataset, 32, seed=self.seed, dim=10)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = models.fcn(10, 64, 3)
        inputs, targets = task.train.inputs, task.train.targets
        history = sgd.stochastic_gradient_descent(model, inputs, targets, self.learning_rate, 8, 20, seed=self.seed)
        weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).numpy()
        threads = torch.get_num_threads()
        return Trained(history.loss, weights, len(history), threads, history.diverged, None, history.tops)

    def _nothing(self, number: int) -> None:
        pass

    def _raise(self, number: int) -> None:
        raise RuntimeError("as it was told")

    def _die(self, number: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _wait_to_die(self, number: int) -> None:
        """The first time, until somebody kills the process."""
        if number == 0:
            time.sleep(600)

    def _interrupt(self, number: int) -> None:
        if number == 0:
            raise KeyboardInterrupt


def runs(marks: Path) -> list[str]:
    """The names of the experiments that began, once for each time."""
    return sorted(path.name.rpartition(".")[0] for path in Path(marks).iterdir())


def pretend(version: str | None) -> None:
    """Make this process say that it has another version of PyTorch; ``None``: the true one again."""
    if version is None:
        fingerprint.dependencies = _true_dependencies
    else:
        fingerprint.dependencies = lambda *others: _true_dependencies(*others) | {"torch": version}


_true_dependencies = fingerprint.dependencies


def look_for_data_in(folder: str) -> None:
    os.environ["CATAPULTS_DATA"] = folder


def execute(notebook: dict) -> str:
    """What the last cell of a notebook prints."""
    import nbclient  # which most of these processes can do without

    return nbclient.NotebookClient(notebook, timeout=120).execute().cells[-1].outputs[0]["text"]
