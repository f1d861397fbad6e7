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
    "ExpandedDescent": "expansion",
    "StochasticDescent": "stochastic",
    "Fit": "fits",
    "StrongModel": "fits",
    "Intervened": "causes",
    "Fork": "causes",
    "Recurrence": "recurrence",
}
_BENCHMARKS = {"Scaling": "scaling"}  # modules of benchmarks/ in a checkout: timings, which are no trainings


class NotHere(ValueError):
    """An experiment cannot be computed by what is installed here; the message says what it takes."""


def source_of(experiment: Experiment) -> Path:
    """The file that computes it: a module beside this one, or that of its own class where this has ``compute``.

    Raises ``ValueError`` for a class that other processes cannot import, such as one of a notebook or a script, and
    :class:`NotHere`.
    """
    kind = type(experiment)
    if hasattr(kind, "compute"):
        file = getattr(sys.modules[kind.__module__], "__file__", None)
        if file is None or kind.__module__ == "__main__":
            here = "what is defined in a notebook or a script cannot be imported by other processes"
            raise ValueError(f"{kind.__name__}: {here}; allowed are classes of modules")
        return Path(file)
    if kind.__name__ in _WHERE:
        return Path(__file__).with_name(f"{_WHERE[kind.__name__]}.py")
    if kind.__name__ not in _BENCHMARKS:
        raise NotHere(f"{kind.__name__}: nothing here computes it; allowed are classes that have a method compute")
    file = Path(__file__).parents[4] / "benchmarks" / f"{_BENCHMARKS[kind.__name__]}.py"
    if not file.exists():
        raise NotHere(f"{file}: not there; timings need a checkout of the project, installed with pip install -e")
    return file


def compute(experiment: Experiment, task: Any, needed: tuple[Any, ...], device: str, **options: Any) -> Any:
    """The result. ``task``: the data that it draws; ``needed``: the results of what it needs, in that order;
    ``device``: as in :func:`catapults.devices.device`; ``options``: ``progress`` and ``checkpoint``."""
    if hasattr(type(experiment), "compute"):
        return experiment.compute(task, needed, device, **options)
    return _loaded(source_of(experiment)).compute(experiment, task, needed, device, **options)


def _loaded(source: Path) -> ModuleType:
    if source.parent == Path(__file__).parent:
        return importlib.import_module(f"{__name__}.{source.stem}")
    name = f"benchmarks.{source.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, source)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
