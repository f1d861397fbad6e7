"""From an experiment to its result: a module for each family of experiments. What one needs is given to it."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ...experiments import Experiment

_WHERE = {
    "GradientDescent": "descent",
    "Restart": "descent",
    "StochasticDescent": "stochastic",
    "Fit": "fits",
    "StrongModel": "fits",
}
_BENCHMARKS = {"Scaling": "scaling"}  # modules of benchmarks/ in a checkout: timings, which are no trainings


class NotHere(Exception):
    """An experiment cannot be computed by what is installed here; the message says what it takes."""


def module_of(experiment: Experiment) -> str:
    """The dotted name of the module that computes it: one of these, or its own where its class has ``compute``."""
    if hasattr(type(experiment), "compute"):
        return type(experiment).__module__
    name = type(experiment).__name__
    return f"{__name__}.{_WHERE[name]}" if name in _WHERE else _benchmark(_BENCHMARKS[name]).__name__


def compute(experiment: Experiment, task: Any, needed: tuple[Any, ...], device: str, **options: Any) -> Any:
    """The result. ``task``: the data that it draws; ``needed``: the results of what it needs, in that order;
    ``device``: as in :func:`catapults.devices.device`; ``options``: ``progress`` and ``checkpoint``."""
    if hasattr(type(experiment), "compute"):
        return experiment.compute(task, needed, device, **options)
    module = importlib.import_module(module_of(experiment))
    return module.compute(experiment, task, needed, device, **options)


def _benchmark(name: str) -> ModuleType:
    full = f"benchmarks.{name}"
    if full not in sys.modules:
        file = Path(__file__).parents[4] / "benchmarks" / f"{name}.py"
        if not file.exists():
            raise NotHere(f"{file}: not there; timings need a checkout of the project, installed with pip install -e")
        spec = importlib.util.spec_from_file_location(full, file)
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full]
