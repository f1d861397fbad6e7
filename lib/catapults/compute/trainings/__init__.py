"""From an experiment to its result: a module for each family of experiments. What it takes from others is given to it."""

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
    """The dotted name of the module that computes it: one of these, or its own where its class has ``compute``.

    Nothing is imported. Raises :class:`NotHere`.
    """
    if hasattr(type(experiment), "compute"):
        return type(experiment).__module__
    name = type(experiment).__name__
    if name in _WHERE:
        return f"{__name__}.{_WHERE[name]}"
    if name not in _BENCHMARKS:
        raise NotHere(f"{name}: nothing here computes it; allowed are classes that have a method compute")
    full = f"benchmarks.{_BENCHMARKS[name]}"
    if not _file(full).exists():
        where = "timings need a checkout of the project, installed with pip install -e"
        raise NotHere(f"{_file(full)}: not there; {where}")
    return full


def compute(experiment: Experiment, task: Any, needed: tuple[Any, ...], device: str, **options: Any) -> Any:
    """The result. ``task``: the data that it draws; ``needed``: the results of what it needs, in that order;
    ``device``: as in :func:`catapults.devices.device`; ``options``: ``progress`` and ``checkpoint``."""
    if hasattr(type(experiment), "compute"):
        return experiment.compute(task, needed, device, **options)
    name = module_of(experiment)
    module = importlib.import_module(name) if name.startswith("catapults.") else _benchmark(name)
    return module.compute(experiment, task, needed, device, **options)


def _benchmark(name: str) -> ModuleType:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, _file(name))
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def _file(name: str) -> Path:
    """Of a module of the checkout."""
    return Path(__file__).parents[4].joinpath(*name.split(".")).with_suffix(".py")
